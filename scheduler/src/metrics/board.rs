//! Gauges that are set together, again and again, with labels that come and go: a zone that is gone must not be shown
//! for ever as it last was, nor a leader that leads no more.

use metrics::{Gauge, Label};
use std::collections::BTreeMap;

type Series = (&'static str, Vec<(&'static str, String)>);

struct Shown {
    gauge: Gauge,
    fresh: bool,
}

/// Sets gauges back to 0 that one round does not set, and all of them when it is dropped.
#[derive(Default)]
pub struct Board(BTreeMap<Series, Shown>);

impl Board {
    pub fn set(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let owned = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let shown = self.0.entry((name, owned)).or_insert_with(|| {
            let labels: Vec<Label> = labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
            Shown { gauge: metrics::gauge!(name, labels), fresh: true }
        });
        shown.gauge.set(value);
        shown.fresh = true;
    }

    /// Ends a round.
    pub fn done(&mut self) {
        for shown in self.0.values_mut() {
            if !std::mem::take(&mut shown.fresh) {
                shown.gauge.set(0.0);
            }
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.0.values().for_each(|shown| shown.gauge.set(0.0));
    }
}
