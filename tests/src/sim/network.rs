//! Core NATS between nodes: messages that may be lost, late, doubled or overtaken; links that are cut in one direction
//! or both; and "nobody listens there", which NATS says of a process whose connection it has seen close.

use super::env::{MS, Micros, Node, SECOND};
use crate::Chance;
use outlive_scheduler::submission::Request;
use outlive_schemas::id::ExecutorId;
use outlive_schemas::message::{Heartbeat, LeaderBeat, ReportBatch, ReportReply, ToExecutor};
use outlive_store::log::Stored;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub enum Message {
    LeaderBeat(LeaderBeat),
    Heartbeat(Heartbeat),
    Order(ExecutorId, ToExecutor),
    Reports {
        batch: ReportBatch,
        from: Node,
        call: u64,
    },
    Asked {
        request: Request,
        call: u64,
    },
    Probe {
        of: Option<ExecutorId>,
        from: Node,
        call: u64,
    },
    /// To whichever scheduler stands in the zone.
    ZoneProbe {
        from: Node,
        call: u64,
    },
    Reply {
        call: u64,
        reply: NatsReply,
    },
    Tail(Stored),
}

#[derive(Clone, Debug)]
pub enum NatsReply {
    Here,
    NoResponders,
    Reports(ReportReply),
    Answer(Box<super::client::Said>),
}

/// How messages fare when nothing particular is broken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// In thousandths: lost, doubled, and slow messages, and publishes that land long after.
    pub drop: u64,
    pub double: u64,
    pub slow: u64,
    pub late: u64,
    /// The most that a slow message takes.
    pub slow_max: Micros,
}

impl Weather {
    pub fn calm() -> Weather {
        Weather::default()
    }

    pub fn delay(&self, chance: &mut Chance) -> Micros {
        if self.slow > 0 && chance.per_mille(self.slow) {
            return chance.between(2 * MS, self.slow_max.max(3 * MS));
        }
        chance.between(200, 1_500)
    }

    /// When each copy of a message arrives.
    pub fn copies(&self, chance: &mut Chance) -> Vec<Micros> {
        if self.drop > 0 && chance.per_mille(self.drop) {
            return Vec::new();
        }
        let mut copies = vec![self.delay(chance)];
        if self.double > 0 && chance.per_mille(self.double) {
            copies.push(self.delay(chance));
        }
        copies
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    out_cut: bool,
    in_cut: bool,
    nats_cut: bool,
    log_cut: bool,
    etcd_cut: bool,
}

pub struct Network {
    zones: BTreeMap<Node, usize>,
    links: BTreeMap<Node, Link>,
    /// Zones whose servers are cut off from the others', and since when.
    isolated: BTreeMap<usize, Micros>,
    pub weather: Weather,
    /// Nodes that NATS knows to be listening. One whose host went silent stays for a while.
    listening: BTreeSet<Node>,
    /// Schedulers that take requests, reports and heartbeats.
    pub serving: BTreeSet<Node>,
    /// The incarnation that each executor's process is.
    current: BTreeMap<Node, ExecutorId>,
    /// When zones were joined to the others again.
    rejoined: BTreeMap<usize, Micros>,
    /// When something last went wrong between two nodes.
    trouble: BTreeMap<(Node, Node), Micros>,
}

/// After this long servers have closed the connections over which nothing comes any more.
const ROUTE_LOST_AFTER: Micros = 4 * SECOND;

impl Network {
    pub fn new(schedulers: &[usize], executors: &[usize]) -> Network {
        let mut zones = BTreeMap::new();
        zones.extend(schedulers.iter().enumerate().map(|(i, zone)| (Node::Scheduler(i), *zone)));
        zones.extend(executors.iter().enumerate().map(|(i, zone)| (Node::Executor(i), *zone)));
        Network {
            links: zones.keys().map(|node| (*node, Link::default())).collect(),
            zones,
            isolated: BTreeMap::new(),
            weather: Weather::calm(),
            listening: BTreeSet::new(),
            serving: BTreeSet::new(),
            current: BTreeMap::new(),
            rejoined: BTreeMap::new(),
            trouble: BTreeMap::new(),
        }
    }

    pub fn nodes(&self) -> Vec<Node> {
        self.zones.keys().copied().collect()
    }

    pub fn zone_of(&self, node: Node) -> Option<usize> {
        self.zones.get(&node).copied()
    }

    fn link(&self, node: Node) -> Link {
        self.links.get(&node).copied().unwrap_or_default()
    }

    pub fn cut(&mut self, node: Node, out: bool, inward: bool) {
        if let Some(link) = self.links.get_mut(&node) {
            link.out_cut |= out;
            link.in_cut |= inward;
        }
    }

    /// From core NATS alone: it goes on reaching etcd and the stores.
    pub fn cut_from_nats(&mut self, node: Node) {
        if let Some(link) = self.links.get_mut(&node) {
            link.nats_cut = true;
        }
    }

    pub fn cut_from_etcd(&mut self, node: Node) {
        if let Some(link) = self.links.get_mut(&node) {
            link.etcd_cut = true;
        }
    }

    pub fn cut_from_log(&mut self, node: Node) {
        if let Some(link) = self.links.get_mut(&node) {
            link.log_cut = true;
        }
    }

    pub fn join(&mut self, node: Node) {
        self.links.insert(node, Link::default());
    }

    pub fn isolate(&mut self, zone: usize, now: Micros) {
        self.isolated.entry(zone).or_insert(now);
    }

    pub fn rejoin(&mut self, zone: usize, now: Micros) {
        if self.isolated.remove(&zone).is_some() {
            self.rejoined.insert(zone, now);
        }
    }

    pub fn heal(&mut self, now: Micros) {
        self.links.values_mut().for_each(|link| *link = Link::default());
        let zones: Vec<usize> = self.isolated.keys().copied().collect();
        zones.into_iter().for_each(|zone| self.rejoin(zone, now));
        self.weather = Weather::calm();
    }

    fn is_isolated(&self, node: Node) -> bool {
        self.zone_of(node).is_some_and(|zone| self.isolated.contains_key(&zone))
    }

    /// Whether two nodes are on different sides of an isolated zone's border, and since when.
    fn border(&self, from: Node, to: Node) -> Option<Micros> {
        let (a, b) = (self.zone_of(from), self.zone_of(to));
        if a == b {
            return None;
        }
        let since = |zone: Option<usize>| zone.and_then(|zone| self.isolated.get(&zone).copied());
        match (since(a), since(b)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn is_open(&self, from: Node, to: Node) -> bool {
        let (from_link, to_link) = (self.link(from), self.link(to));
        let cut = from_link.out_cut || to_link.in_cut || from_link.nats_cut || to_link.nats_cut;
        !cut && self.border(from, to).is_none()
    }

    pub fn reaches_log(&self, from: Node) -> bool {
        let link = self.link(from);
        !link.out_cut && !link.log_cut && !self.is_isolated(from)
    }

    pub fn log_reaches(&self, to: Node) -> bool {
        let link = self.link(to);
        !link.in_cut && !link.log_cut && !self.is_isolated(to)
    }

    pub fn reaches_etcd(&self, from: Node) -> bool {
        !self.link(from).etcd_cut && !self.link(from).out_cut && !self.is_isolated(from)
    }

    pub fn etcd_reaches(&self, to: Node) -> bool {
        !self.link(to).etcd_cut && !self.link(to).in_cut && !self.is_isolated(to)
    }

    pub fn listen(&mut self, node: Node) {
        self.listening.insert(node);
    }

    pub fn hang_up(&mut self, node: Node) {
        self.listening.remove(&node);
        self.serving.remove(&node);
        self.current.remove(&node);
    }

    pub fn is(&mut self, node: Node, executor: ExecutorId) {
        self.current.insert(node, executor);
    }

    /// Whether this very incarnation is there.
    pub fn is_there(&self, node: Node, executor: ExecutorId) -> bool {
        self.listening.contains(&node) && self.current.get(&node) == Some(&executor)
    }

    /// Whether servers may have said of each other's clients that nobody is there.
    pub fn lost_route_lately(&self, one: Node, other: Node, now: Micros) -> bool {
        let lately = |node| {
            let rejoined = self.zone_of(node).and_then(|zone| self.rejoined.get(&zone));
            rejoined.is_some_and(|at| now <= at + 3 * SECOND)
        };
        self.border(one, other).is_some_and(|since| now >= since + ROUTE_LOST_AFTER) || lately(one) || lately(other)
    }

    /// Whether NATS tells `from` that nobody listens at `to`.
    pub fn looks_gone(&self, from: Node, to: Node, now: Micros) -> bool {
        let link = self.link(from);
        if link.out_cut || link.in_cut || link.nats_cut {
            return false;
        }
        let lost_route = self.border(from, to).is_some_and(|since| now >= since + ROUTE_LOST_AFTER);
        lost_route || (!self.listening.contains(&to) && self.border(from, to).is_none())
    }

    pub fn note_trouble(&mut self, from: Node, to: Node, now: Micros) {
        self.trouble.insert((from.min(to), from.max(to)), now);
    }

    /// Whether anything went wrong between two nodes in the last while.
    pub fn had_trouble(&self, one: Node, other: Node, since: Micros) -> bool {
        self.trouble.get(&(one.min(other), one.max(other))).is_some_and(|at| *at >= since)
    }
}
