//! Series of the exporter's: registered once, each with the place where its value is read.

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Where a counter's value is read.
type ReadTotal = Box<dyn Fn() -> u64 + Send + Sync>;

/// Where a gauge's value is read.
type ReadLevel = Box<dyn Fn() -> f64 + Send + Sync>;

/// Labels of one series: names with values, of a set that is fixed at start.
pub type Labels<'a> = &'a [(&'static str, String)];

/// Registered series. Nothing else on the process writes into this recorder, and it is not the global one.
pub struct Registry {
    recorder: PrometheusRecorder,
    counters: Vec<(Counter, ReadTotal)>,
    gauges: Vec<(Gauge, ReadLevel)>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { recorder: PrometheusBuilder::new().build_recorder(), counters: Vec::new(), gauges: Vec::new() }
    }
}

impl Registry {
    /// Registers one series of a counter. `read` gives a total that never goes down.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.recorder.describe_counter(KeyName::from_const_str(name), None, help.into());
        let counter = self.recorder.register_counter(&key(name, labels), &metadata());
        self.counters.push((counter, Box::new(read)));
    }

    /// Registers one series of a gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: Labels<'_>,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        self.recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
        let gauge = self.recorder.register_gauge(&key(name, labels), &metadata());
        self.gauges.push((gauge, Box::new(read)));
    }

    /// Reads every value and writes all series.
    pub fn render(&self) -> String {
        for (counter, read) in &self.counters {
            counter.absolute(read());
        }
        for (gauge, read) in &self.gauges {
            gauge.set(read());
        }
        self.handle().render()
    }

    fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} counters, {} gauges)", self.counters.len(), self.gauges.len())
    }
}

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    let labels: Vec<_> = labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
    Key::from_parts(name, labels)
}

fn metadata() -> Metadata<'static> {
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()))
}
