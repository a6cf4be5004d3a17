//! A metric as it is promised: its name, its kind and what it means, in one table per role.
//!
//! The table is what the recorder is set up from, what `ops/docs/metrics.md` is checked against, and what dashboards
//! may rely on. Deliberately not here: values.

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

/// What a metric counts, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets. A histogram that is not in a table would come out as a summary.
    Histogram(&'static [f64]),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

impl Metric {
    pub const fn counter(name: &'static str, help: &'static str) -> Metric {
        Metric { name, kind: Kind::Counter, help }
    }

    pub const fn gauge(name: &'static str, help: &'static str) -> Metric {
        Metric { name, kind: Kind::Gauge, help }
    }

    pub const fn histogram(name: &'static str, bounds: &'static [f64], help: &'static str) -> Metric {
        Metric { name, kind: Kind::Histogram(bounds), help }
    }
}

/// What every role shows, whatever it does.
pub const SHARED: [Metric; 4] = [
    Metric::gauge("outlive_build_info", "Always 1; the labels say which version and role this is."),
    Metric::gauge("outlive_nats_connected", "1 while this process is connected to a NATS server, else 0."),
    Metric::counter("outlive_nats_disconnects_total", "Connections to NATS that were lost."),
    Metric::counter("outlive_decrypt_failures_total", "Sealed data or keys that did not open."),
];

/// Begins what [`SHARED`] lists, so that each is there before the first thing happens to it.
pub fn begin_shared(version: &'static str, role: &'static str) {
    metrics::gauge!("outlive_build_info", "version" => version, "role" => role).set(1.0);
    metrics::gauge!("outlive_nats_connected").set(0.0);
    metrics::counter!("outlive_nats_disconnects_total").increment(0);
    metrics::counter!("outlive_decrypt_failures_total").increment(0);
}

pub fn nats_connected(connected: bool) {
    metrics::gauge!("outlive_nats_connected").set(if connected { 1.0 } else { 0.0 });
    if !connected {
        metrics::counter!("outlive_nats_disconnects_total").increment(1);
    }
}

pub(super) fn builder(metrics: &[Metric]) -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in metrics {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    Ok(builder)
}

/// Tells the recorder in force what each metric means.
pub(super) fn describe(metrics: &[Metric]) {
    for Metric { name, kind, help } in metrics {
        match kind {
            Kind::Counter => describe_counter!(*name, *help),
            Kind::Gauge => describe_gauge!(*name, *help),
            Kind::Histogram(_) => describe_histogram!(*name, *help),
        }
    }
}

/// A recorder of its own, as the process would have it: for tests, which must not share one.
pub fn recorder(metrics: &[Metric]) -> PrometheusRecorder {
    let recorder = builder(metrics).expect("buckets are not empty").build_recorder();
    metrics::with_local_recorder(&recorder, || describe(metrics));
    recorder
}

/// A scrape as a table of what is in it: name, type, labels, help; sorted, without values. It is what
/// `ops/docs/metrics.md` holds.
pub fn inventory(scrape: &str) -> String {
    use std::collections::{BTreeMap, BTreeSet};
    let mut kinds = BTreeMap::new();
    let mut helps = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name, kind);
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.insert(name, help);
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            let (name, inner) = series.split_once('{').unwrap_or((series, ""));
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|family| kinds.contains_key(family))
                .unwrap_or(name);
            let names = inner.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(key, _)| key.to_owned());
            labels.entry(family).or_default().extend(names.filter(|key| key != "le"));
        }
    }
    let mut table = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, kind) in kinds {
        let keys: Vec<String> = labels.get(name).into_iter().flatten().map(|key| format!("`{key}`")).collect();
        let help = helps.get(name).copied().unwrap_or("");
        table.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", keys.join(", ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: [Metric; 3] = [
        Metric::counter("tries_total", "Tries."),
        Metric::gauge("heat", "How hot it is."),
        Metric::histogram("wait_seconds", &[0.1, 1.0], "Waiting."),
    ];

    #[test]
    fn an_inventory_has_names_types_labels_and_help_but_no_values() {
        let recorder = recorder(&METRICS);
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("tries_total", "outcome" => "good", "zone" => "a").increment(3);
            metrics::gauge!("heat").set(0.5);
            drop(metrics::histogram!("wait_seconds"));
            metrics::counter!("nobody_described_me_total").increment(1);
        });
        assert_eq!(
            inventory(&recorder.handle().render()),
            "| name | type | labels | meaning |\n\
             |---|---|---|---|\n\
             | `heat` | gauge |  | How hot it is. |\n\
             | `nobody_described_me_total` | counter |  |  |\n\
             | `tries_total` | counter | `outcome`, `zone` | Tries. |\n\
             | `wait_seconds` | histogram |  | Waiting. |\n"
        );
    }
}
