//! What an executor is: where it stands and what it has room for.

use crate::id::{ExecutorId, ExecutorName, Zone};
use crate::job::{Driver, Labels, Resources};
use crate::size::ByteSize;
use serde::de::IntoDeserializer as _;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use std::ops::{AddAssign, SubAssign};

/// An executor as it registers itself in etcd, under its lease. Stored as JSON so that operators can read it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub id: ExecutorId,
    pub name: ExecutorName,
    pub zone: Zone,
    pub host: String,
    pub capacity: Capacity,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    #[serde(deserialize_with = "known_drivers")]
    pub drivers: Vec<DriverKind>,
    pub version: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverKind {
    Process,
    Noop,
}

/// Drivers of a newer executor that this version does not know are none to it: it places nothing that needs them.
fn known_drivers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<DriverKind>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let known = |name: &String| {
        let text: StrDeserializer<'_, serde::de::value::Error> = name.as_str().into_deserializer();
        DriverKind::deserialize(text).ok()
    };
    Ok(names.iter().filter_map(known).collect())
}

impl Driver {
    pub fn kind(&self) -> DriverKind {
        match self {
            Driver::Process(_) => DriverKind::Process,
            Driver::Noop(_) => DriverKind::Noop,
        }
    }
}

/// An amount of what executors have and attempts take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capacity {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// Attempts at once, whatever their size.
    pub slots: u32,
}

impl Capacity {
    /// What one attempt takes. A noop attempt is over as soon as it is begun and takes a slot only.
    pub fn of(driver: DriverKind, resources: &Resources) -> Capacity {
        match driver {
            DriverKind::Noop => Capacity { slots: 1, ..Capacity::default() },
            DriverKind::Process => {
                let Resources { cpu_millis, memory: ByteSize(memory_bytes) } = *resources;
                Capacity { cpu_millis: u64::from(cpu_millis), memory_bytes, slots: 1 }
            }
        }
    }

    pub fn holds(&self, need: &Capacity) -> bool {
        self.cpu_millis >= need.cpu_millis && self.memory_bytes >= need.memory_bytes && self.slots >= need.slots
    }

    /// What is left after `taken`; nothing where more is taken than there is.
    pub fn less(&self, taken: &Capacity) -> Capacity {
        Capacity {
            cpu_millis: self.cpu_millis.saturating_sub(taken.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(taken.memory_bytes),
            slots: self.slots.saturating_sub(taken.slots),
        }
    }
}

impl AddAssign for Capacity {
    fn add_assign(&mut self, more: Capacity) {
        // What executors say of themselves may be absurd, and a sum over a large fleet may be beyond counting.
        self.cpu_millis = self.cpu_millis.saturating_add(more.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_add(more.memory_bytes);
        self.slots = self.slots.saturating_add(more.slots);
    }
}

impl SubAssign for Capacity {
    fn sub_assign(&mut self, less: Capacity) {
        *self = self.less(&less);
    }
}
