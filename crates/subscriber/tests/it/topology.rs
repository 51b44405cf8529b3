//! Sentinel and Cluster, with real processes.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use turnhook_reducer::source::GapReason;
use turnhook_subscriber::{redis::RedisConfig, source::SourceConfig};

use crate::support::{Client, Process, Redis, free_port, start, status, until, write};

/// A Sentinel that watches one master.
async fn sentinel(master: u16) -> (Process, u16, TempDir) {
    for _ in 0..5 {
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let conf = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n",
            dir.path().display()
        );
        write(&conf, text.as_bytes());
        let mut command = Command::new("redis-server");
        command.arg(&conf).arg("--sentinel");
        let mut process = Process::spawn(&mut command, &dir.path().join("log"));
        for _ in 0..100 {
            if !process.running() {
                break;
            }
            if let Ok(mut client) = Client::connect(port).await
                && client.try_call(&["PING"]).await.is_ok_and(|a| a == "+PONG")
            {
                return (process, port, dir);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    panic!("the Sentinel does not start");
}

async fn publish_until_heard(ear: &mut crate::support::Ear, port: u16, mark: &str) {
    let mut client = Client::connect(port).await.unwrap();
    client.publish(&status("bob", 1), mark.as_bytes()).await;
    ear.until(mark, |e| e.heard(mark)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_master_is_followed() {
    let mut master = Redis::start(&[]).await;
    let port = master.port.to_string();
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]).await;
    until("replication", async || {
        let info = replica.client().await.call(&["INFO", "replication"]).await;
        info.contains("master_link_status:up").then_some(())
    })
    .await;
    let (_sentinel, port, _dir) = sentinel(master.port).await;
    let mut admin = Client::connect(port).await.unwrap();
    until("Sentinel to know the replica", async || {
        let replicas = admin.call(&["SENTINEL", "REPLICAS", "main"]).await;
        (replicas.contains(&format!("127.0.0.1:{}", replica.port)) && !replicas.contains("s_down"))
            .then_some(())
    })
    .await;

    let url = format!("redis-sentinel://127.0.0.1:{port}?sentinelServiceName=main");
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(url))).await;
    ear.hearing().await;
    assert_eq!(
        ear.told.last().unwrap(),
        &format!("hearing subscribed on 127.0.0.1:{}", master.port)
    );
    publish_until_heard(&mut ear, master.port, "before").await;

    master.process.kill();
    ear.until("the loss", |e| e.count("deaf") > 0).await;
    let there = format!("hearing subscribed on 127.0.0.1:{}", replica.port);
    ear.until("the new master", |e| e.told.contains(&there)).await;
    ear.until("the gap", |e| e.gaps.len() == 1).await;
    assert_eq!(ear.gaps[0].reason, GapReason::Reconnect);
    publish_until_heard(&mut ear, replica.port, "after").await;
}

#[tokio::test]
async fn no_sentinel_is_said() {
    let url = format!(
        "redis-sentinel://127.0.0.1:{}?sentinelServiceName=main",
        free_port()
    );
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(url))).await;
    ear.until("the complaint", |e| e.count("deaf Sentinel: ") > 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster() {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let bus = free_port().to_string();
        nodes.push(
            Redis::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-config-file",
                "{dir}/nodes",
            ])
            .await,
        );
    }
    let addresses: Vec<String> = nodes.iter().map(|n| format!("127.0.0.1:{}", n.port)).collect();
    let mut create = Command::new("redis-cli");
    create
        .args(["--cluster", "create"])
        .args(&addresses)
        .arg("--cluster-yes")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || create.output().unwrap())
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    for node in &nodes {
        until("the cluster", async || {
            node.client()
                .await
                .call(&["CLUSTER", "INFO"])
                .await
                .contains("cluster_state:ok")
                .then_some(())
        })
        .await;
    }

    // Keys on all nodes; only those of the node that is listened to are seen.
    let mut keys = [0; 3];
    for id in 0..50 {
        let key = String::from_utf8(status("bob", id)).unwrap();
        for (node, count) in nodes.iter().zip(&mut keys) {
            if node.client().await.call(&["SET", &key, "new lifetime=600"]).await == "+OK" {
                *count += 1;
            }
        }
    }
    assert_eq!(keys.iter().sum::<usize>(), 50);

    // The first host of the URL is the one that is listened to.
    let url = format!("redis-cluster://{}?node={}", addresses[1], addresses[0]);
    let mut ear = start(SourceConfig::Redis(RedisConfig::new(url))).await;
    ear.hearing().await;
    assert_eq!(
        ear.told.last().unwrap(),
        &format!("hearing subscribed on {}", addresses[1])
    );
    ear.until("the partial snapshot", |e| e.count("snapshot ended false") == 1)
        .await;
    assert_eq!(ear.entries.len(), keys[1]);
    // Whatever is published on any node is heard, once.
    for (i, node) in nodes.iter().enumerate() {
        publish_until_heard(&mut ear, node.port, &format!("from {i}")).await;
    }
    assert_eq!(ear.messages.len(), 3);

    // Its node dies, and the other one of the URL: the third is known by now.
    nodes[0].process.kill();
    nodes[1].process.kill();
    let third = format!("hearing subscribed on {}", addresses[2]);
    ear.until("the third node", |e| e.told.contains(&third)).await;
    publish_until_heard(&mut ear, nodes[2].port, "after").await;
}
