//! `process_*`: what every exporter says of its process. What the system does not say is left out.

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

#[derive(Debug)]
pub(super) struct Process {
    started_at: f64,
}

impl Process {
    pub(super) fn new() -> Process {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Process {
            started_at: since_epoch.unwrap_or_default().as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let counter = encoder.encode_descriptor(
            "process_cpu",
            "CPU time used, of all threads",
            Some(&Unit::Seconds),
            MetricType::Counter,
        )?;
        ConstCounter::new(seconds).encode(counter)?;
        let memory = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            (
                "process_start_time",
                "When the process was started",
                Some(Unit::Seconds),
                Some(self.started_at),
            ),
            (
                "process_resident_memory",
                "Memory that is held",
                Some(Unit::Bytes),
                bytes_of(&memory, "VmRSS:"),
            ),
            (
                "process_virtual_memory",
                "Memory that is mapped",
                Some(Unit::Bytes),
                bytes_of(&memory, "VmSize:"),
            ),
            (
                "process_open_fds",
                "File descriptors in use",
                None,
                open_descriptors(),
            ),
            (
                "process_max_fds",
                "File descriptors that there can be",
                None,
                getrlimit(Resource::Nofile).current.map(|limit| limit as f64),
            ),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            ConstGauge::new(value).encode(gauge)?;
        }
        Ok(())
    }
}

/// A line `VmRSS:     5432 kB` of `/proc/self/status`.
fn bytes_of(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_descriptors() -> Option<f64> {
    // One of them is that of the folder, while it is read.
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(open.saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_status() {
        let status = "Name:\tturnhook\nVmSize:\t  20480 kB\nVmRSS:\t    5432 kB\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(5_562_368.0));
        assert_eq!(bytes_of(status, "VmSwap:"), None);
    }
}
