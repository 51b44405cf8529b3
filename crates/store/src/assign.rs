//! Who should hold which lease: computed by every node for itself, from the same view to the same end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::{LeaseName, NodeId, NodeRow, View};

/// The node that should hold each lease; a lease that no live node can hold is missing.
///
/// Sources and lanes are each spread evenly over the live nodes, a source only over those that have it configured: no
/// node could give one to another, be it by way of third ones, without the other having as many as it had. Who holds a
/// lease keeps it unless it has too many of its kind.
#[must_use]
pub fn assign(view: &View) -> BTreeMap<LeaseName, NodeId> {
    let live: Vec<&NodeRow> = view.nodes.iter().filter(|node| node.live).collect();
    let (sources, lanes): (Vec<_>, Vec<_>) = view
        .leases
        .iter()
        .partition(|lease| matches!(lease.name, LeaseName::Source(_)));
    let mut wanted = BTreeMap::new();
    for kind in [sources, lanes] {
        let mut kind: Vec<_> = kind.into_iter().map(|lease| (lease.name, lease.holder)).collect();
        kind.sort_unstable();
        wanted.extend(Spread::over(&live, &kind).holders);
    }
    wanted
}

/// The leases of one kind over the nodes that can hold them.
#[derive(Default)]
struct Spread {
    can: BTreeMap<LeaseName, BTreeSet<NodeId>>,
    holders: BTreeMap<LeaseName, NodeId>,
    held: BTreeMap<NodeId, BTreeSet<LeaseName>>,
    /// Those that their holders kept: they are moved after others.
    kept: BTreeSet<LeaseName>,
}

impl Spread {
    fn over(live: &[&NodeRow], leases: &[(LeaseName, Option<NodeId>)]) -> Spread {
        let mut spread = Spread::default();
        for node in live {
            spread.held.insert(node.id, BTreeSet::new());
        }
        for (lease, _) in leases {
            let can = |node: &&&NodeRow| match lease {
                LeaseName::Source(source) => node.sources.contains(source),
                LeaseName::Lane(_) => true,
            };
            spread
                .can
                .insert(*lease, live.iter().filter(can).map(|node| node.id).collect());
        }
        for (lease, holder) in leases {
            if let Some(holder) = holder.filter(|holder| spread.can[lease].contains(holder)) {
                spread.kept.insert(*lease);
                spread.give(*lease, holder);
            }
        }
        for (lease, _) in leases {
            if !spread.kept.contains(lease) {
                let least = spread.can[lease]
                    .iter()
                    .min_by_key(|node| (spread.load(**node), **node))
                    .copied();
                if let Some(node) = least {
                    spread.give(*lease, node);
                }
            }
        }
        // Each round narrows the sum of the squares of what nodes hold: this ends, and the bound is never reached.
        for _ in 0..leases.len() * live.len().max(1) {
            if !spread.relieve() {
                break;
            }
        }
        spread
    }

    fn load(&self, node: NodeId) -> usize {
        self.held.get(&node).map_or(0, BTreeSet::len)
    }

    fn give(&mut self, lease: LeaseName, to: NodeId) {
        if let Some(from) = self.holders.insert(lease, to) {
            self.held.entry(from).or_default().remove(&lease);
        }
        self.held.entry(to).or_default().insert(lease);
    }

    /// Has a node that holds too many give one away, by the fewest hands, to one with at least two less. Those who hold
    /// most are asked first.
    fn relieve(&mut self) -> bool {
        let mut nodes: Vec<NodeId> = self.held.keys().copied().collect();
        nodes.sort_by_key(|node| (std::cmp::Reverse(self.load(*node)), *node));
        for from in nodes {
            if let Some(path) = self.way_out(from) {
                for (lease, to) in path {
                    self.give(lease, to);
                }
                return true;
            }
        }
        false
    }

    /// The gifts that lead from `from` to the node with the least that can be reached by as few of them as that takes.
    fn way_out(&self, from: NodeId) -> Option<Vec<(LeaseName, NodeId)>> {
        let most = self.load(from).checked_sub(2)?;
        let mut came: BTreeMap<NodeId, (NodeId, LeaseName)> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        let mut seen = BTreeSet::from([from]);
        let mut end: Option<NodeId> = None;
        while let Some(node) = queue.pop_front() {
            // What was free before is moved rather than what somebody has; the highest name first.
            let mut leases: Vec<LeaseName> = self.held[&node].iter().copied().collect();
            leases.sort_by_key(|lease| (self.kept.contains(lease), std::cmp::Reverse(*lease)));
            for lease in leases {
                for to in &self.can[&lease] {
                    if seen.insert(*to) {
                        came.insert(*to, (node, lease));
                        queue.push_back(*to);
                        if self.load(*to) <= most && end.is_none_or(|end| self.load(*to) < self.load(end)) {
                            end = Some(*to);
                        }
                    }
                }
            }
        }
        let mut path = Vec::new();
        let mut at = end?;
        while at != from {
            let (before, lease) = came.get(&at).copied()?;
            path.push((lease, at));
            at = before;
        }
        path.reverse();
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        cluster::{Epoch, Lanes, LeaseRow},
        ids::SourceId,
    };

    fn node(id: i64, live: bool, sources: &[u32]) -> NodeRow {
        NodeRow {
            id: NodeId(id),
            name: format!("node-{id}"),
            version: "1".into(),
            started_at: turnhook_reducer::time::Timestamp(0),
            live,
            expires_in: Duration::ZERO,
            sources: sources.iter().copied().map(SourceId).collect(),
        }
    }

    fn lease(name: LeaseName, holder: Option<i64>) -> LeaseRow {
        LeaseRow {
            name,
            holder: holder.map(NodeId),
            epoch: Epoch(1),
            expired: holder.is_none(),
        }
    }

    fn lanes(holder: impl Fn(u8) -> Option<i64>) -> Vec<LeaseRow> {
        (0..Lanes::COUNT)
            .map(|n| lease(LeaseName::Lane(n), holder(n)))
            .collect()
    }

    fn loads(view: &View, wanted: &BTreeMap<LeaseName, NodeId>, source: bool) -> BTreeMap<NodeId, usize> {
        let mut loads: BTreeMap<NodeId, usize> =
            view.nodes.iter().filter(|n| n.live).map(|n| (n.id, 0)).collect();
        for (name, node) in wanted {
            if matches!(name, LeaseName::Source(_)) == source {
                *loads.get_mut(node).unwrap() += 1;
            }
        }
        loads
    }

    #[test]
    fn a_node_that_comes_takes_its_share_and_no_more() {
        let view = View {
            nodes: vec![node(1, true, &[]), node(2, true, &[]), node(3, true, &[])],
            leases: lanes(|n| Some(i64::from(n % 2) + 1)),
        };
        let wanted = assign(&view);
        let moved: Vec<_> = view
            .leases
            .iter()
            .filter(|l| l.holder != wanted.get(&l.name).copied())
            .collect();
        assert_eq!(moved.len(), 21);
        assert!(moved.iter().all(|l| wanted[&l.name] == NodeId(3)));
    }

    #[test]
    fn the_leases_of_a_node_that_dies_go_to_the_others_alone() {
        let view = View {
            nodes: vec![node(1, true, &[]), node(2, false, &[]), node(3, true, &[])],
            leases: lanes(|n| Some(i64::from(n % 3) + 1)),
        };
        let wanted = assign(&view);
        for l in view.leases.iter().filter(|l| l.holder != Some(NodeId(2))) {
            assert_eq!(Some(wanted[&l.name]), l.holder);
        }
        assert_eq!(
            loads(&view, &wanted, false).into_values().collect::<Vec<_>>(),
            [32, 32]
        );
    }

    #[test]
    fn nobody_holds_what_nobody_can() {
        let view = View {
            nodes: vec![node(1, true, &[1]), node(2, false, &[2])],
            leases: vec![
                lease(LeaseName::Source(SourceId(1)), None),
                lease(LeaseName::Source(SourceId(2)), Some(2)),
                lease(LeaseName::Source(SourceId(3)), Some(1)),
            ],
        };
        assert_eq!(
            assign(&view),
            [(LeaseName::Source(SourceId(1)), NodeId(1))].into()
        );
        assert_eq!(assign(&View::default()), BTreeMap::new());
    }

    /// Node 1 alone can lead source 9 and has source 1 too, which node 2 can lead if node 3 takes source 2 from it.
    #[test]
    fn sources_are_handed_on_by_way_of_third_nodes() {
        let view = View {
            nodes: vec![
                node(1, true, &[1, 8, 9]),
                node(2, true, &[1, 2]),
                node(3, true, &[2]),
            ],
            leases: vec![
                lease(LeaseName::Source(SourceId(1)), Some(1)),
                lease(LeaseName::Source(SourceId(2)), Some(2)),
                lease(LeaseName::Source(SourceId(9)), Some(1)),
            ],
        };
        let wanted = assign(&view);
        assert_eq!(
            loads(&view, &wanted, true).into_values().collect::<Vec<_>>(),
            [1, 1, 1]
        );
    }

    fn views() -> impl Strategy<Value = View> {
        let nodes = prop::collection::vec((any::<bool>(), prop::collection::btree_set(0..8u32, 0..8)), 0..6);
        let holder = || prop::option::of(0..8i64);
        (
            nodes,
            prop::collection::vec(holder(), 0..8),
            prop::collection::vec(holder(), 0..65),
        )
            .prop_map(|(nodes, sources, lanes)| View {
                nodes: (0..)
                    .zip(&nodes)
                    .map(|(id, (live, sources))| {
                        node(id, *live, &sources.iter().copied().collect::<Vec<_>>())
                    })
                    .collect(),
                leases: (0..)
                    .zip(sources)
                    .map(|(n, h)| lease(LeaseName::Source(SourceId(n)), h))
                    .chain((0..).zip(lanes).map(|(n, h)| lease(LeaseName::Lane(n), h)))
                    .collect(),
            })
    }

    proptest! {
        /// By a live node that can hold it, where there is one.
        #[test]
        fn every_lease_is_wanted(view in views()) {
            let wanted = assign(&view);
            for l in &view.leases {
                let can: Vec<NodeId> = view.nodes.iter().filter(|n| n.live && match l.name {
                    LeaseName::Source(s) => n.sources.contains(&s),
                    LeaseName::Lane(_) => true,
                }).map(|n| n.id).collect();
                match wanted.get(&l.name) {
                    Some(node) => prop_assert!(can.contains(node)),
                    None => prop_assert!(can.is_empty()),
                }
            }
            prop_assert!(wanted.keys().all(|name| view.leases.iter().any(|l| l.name == *name)));
        }

        /// Lanes within one; and of lanes no more move than must.
        #[test]
        fn lanes_are_balanced_and_few_move(view in views()) {
            let wanted = assign(&view);
            let loads = loads(&view, &wanted, false);
            let (Some(most), Some(least)) = (loads.values().max(), loads.values().min()) else { return Ok(()) };
            prop_assert!(most - least <= 1, "{loads:?}");
            let lanes: Vec<&LeaseRow> = view.leases.iter().filter(|l| matches!(l.name, LeaseName::Lane(_))).collect();
            let mut held: Vec<usize> =
                loads.keys().map(|n| lanes.iter().filter(|l| l.holder == Some(*n)).count()).collect();
            held.sort_unstable_by(|a, b| b.cmp(a));
            // Those who hold most keep the larger shares.
            let (share, larger) = (lanes.len() / held.len(), lanes.len() % held.len());
            let must: usize = held
                .iter()
                .enumerate()
                .map(|(i, held)| held.saturating_sub(share + usize::from(i < larger)))
                .sum();
            let moved = lanes
                .iter()
                .filter(|l| l.holder.is_some_and(|h| loads.contains_key(&h)) && l.holder != wanted.get(&l.name).copied())
                .count();
            prop_assert_eq!(moved, must);
        }

        /// Within one wherever every node can lead every source.
        #[test]
        fn sources_are_balanced_where_all_have_them(mut view in views()) {
            for node in &mut view.nodes {
                node.sources = (0..8).map(SourceId).collect();
            }
            let loads = loads(&view, &assign(&view), true);
            let (Some(most), Some(least)) = (loads.values().max(), loads.values().min()) else { return Ok(()) };
            prop_assert!(most - least <= 1, "{loads:?}");
        }

        /// Where not, nobody could be spared by another.
        #[test]
        fn no_source_could_be_given_to_one_with_less(view in views()) {
            let wanted = assign(&view);
            let loads = loads(&view, &wanted, true);
            for (name, node) in &wanted {
                let LeaseName::Source(source) = name else { continue };
                for other in view.nodes.iter().filter(|n| n.live && n.sources.contains(source)) {
                    prop_assert!(loads[node] <= loads[&other.id] + 1);
                }
            }
        }

        /// Every node computes the same, in whatever order they are given; and once it is so, it stays so.
        #[test]
        fn it_is_the_same_everywhere_and_stays(view in views()) {
            let wanted = assign(&view);
            let mut turned = view.clone();
            turned.nodes.reverse();
            turned.leases.reverse();
            prop_assert_eq!(&assign(&turned), &wanted);
            let mut settled = view.clone();
            for l in &mut settled.leases {
                l.holder = wanted.get(&l.name).copied();
            }
            prop_assert_eq!(assign(&settled), wanted);
        }
    }
}
