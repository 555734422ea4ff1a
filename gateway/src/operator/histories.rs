//! Metrics of the embedded broker's histories and of their log. With another broker they stay at 0.

use std::sync::atomic::Ordering::Relaxed;

use tidegate_broadcaster::LogStats;

use super::broker::latency;
use super::text::Text;

/// Name, help, and where the log keeps it.
type OfLog = (&'static str, &'static str, fn(&LogStats) -> f64);

const LEVELS: &[OfLog] = &[
    ("tidegate_history_memory_bytes", "Memory that the embedded broker's histories take.", |log| {
        log.history_bytes.load(Relaxed) as f64
    }),
    ("tidegate_history_log_bytes", "Bytes of the log's files.", |log| log.bytes.load(Relaxed) as f64),
    ("tidegate_history_log_snapshot_bytes", "Bytes of the log's snapshot.", |log| {
        log.snapshot_bytes.load(Relaxed) as f64
    }),
    ("tidegate_history_log_segments", "Segments of the log that no snapshot covers.", |log| {
        log.segments.load(Relaxed) as f64
    }),
    ("tidegate_history_log_pending_bytes", "Bytes that waited to be written at the last write.", |log| {
        log.pending_bytes.load(Relaxed) as f64
    }),
    ("tidegate_history_log_replay_seconds", "How long reading the log took at the start.", |log| {
        log.replay_ms.load(Relaxed) as f64 / 1e3
    }),
];

const TOTALS: &[OfLog] = &[
    ("tidegate_history_evicted_total", "Publications dropped before their time for want of memory.", |log| {
        log.evicted.load(Relaxed) as f64
    }),
    ("tidegate_history_log_refused_total", "Publishes refused because the log took nothing more.", |log| {
        log.refused.load(Relaxed) as f64
    }),
    ("tidegate_history_log_writes_total", "Writes to the log; each may carry many publications.", |log| {
        log.writes.load(Relaxed) as f64
    }),
    ("tidegate_history_log_written_bytes_total", "Bytes written to the log's segments.", |log| {
        log.written_bytes.load(Relaxed) as f64
    }),
    ("tidegate_history_log_errors_total", "Writes and syncs of the log that failed.", |log| {
        log.errors.load(Relaxed) as f64
    }),
    ("tidegate_history_log_compactions_total", "Snapshots that took the place of old segments.", |log| {
        log.compactions.load(Relaxed) as f64
    }),
    ("tidegate_history_log_replayed_records_total", "Records read at the start.", |log| {
        log.replayed.load(Relaxed) as f64
    }),
    ("tidegate_history_log_cut_bytes_total", "Bytes of torn writes cut off at the start.", |log| {
        log.cut_bytes.load(Relaxed) as f64
    }),
    ("tidegate_history_log_corrupt_files_total", "Damaged files set aside at the start.", |log| {
        log.corrupt.load(Relaxed) as f64
    }),
    ("tidegate_history_renewed_channels_total", "Channels numbered anew at the start.", |log| {
        log.renewed.load(Relaxed) as f64
    }),
];

/// Appends all of them.
pub(super) fn write(text: &mut Text, log: &LogStats) {
    for (kind, of_kind) in [("gauge", LEVELS), ("counter", TOTALS)] {
        for (name, help, read) in of_kind {
            text.family(name, kind, help);
            text.sample(name, &[], read(log));
        }
    }
    let name = "tidegate_history_log_fsync_duration_seconds";
    text.family(name, "histogram", "How long the disk took to make the log durable.");
    latency(text, name, &[], &log.syncs);
}
