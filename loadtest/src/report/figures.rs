//! The figures that a run can have: the one place that knows their names, titles, units and which direction is better.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::format;

/// Which direction of a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// A cost or a fault.
    Lower,
    /// A capacity.
    Higher,
    /// What was asked for, or a circumstance.
    Neither,
}

/// What a figure counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things.
    Count,
    /// Things per second.
    PerSecond,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Hundredths of one processor.
    Percent,
    /// One figure over another.
    Ratio,
}

impl Unit {
    /// The unit's sign, empty for a plain count.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::PerSecond => "/s",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Bytes => "B",
            Self::Percent => "%",
            Self::Ratio => "x",
        }
    }
}

/// One figure of a report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// Its key in the JSON report.
    pub(crate) name: &'static str,
    /// Its name for a person.
    pub(crate) title: &'static str,
    /// What it counts in.
    pub(crate) unit: Unit,
    /// Digits behind the point that mean something.
    pub(crate) decimals: usize,
    /// Which direction is better.
    pub(crate) better: Better,
    /// A sentence about it.
    pub(crate) about: &'static str,
}

macro_rules! figures {
    ($($constant:ident = $name:literal, $title:literal, $unit:ident, $decimals:literal, $better:ident, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub(crate) static $constant: Figure = Figure {
                name: $name,
                title: $title,
                unit: Unit::$unit,
                decimals: $decimals,
                better: Better::$better,
                about: $about,
            };
        )*

        /// All figures, in the order in which tables have them.
        pub(crate) static ALL: &[&Figure] = &[$(&$constant),*];
    };
}

figures! {
    SESSIONS = "sessions", "sessions", Count, 0, Neither, "Sessions that were held.";
    CHANNELS = "channels", "channels", Count, 0, Neither, "Channels that they subscribed to.";
    SUBSCRIPTIONS = "subscriptions", "subscriptions of a session", Count, 0, Neither, "Channels that each session subscribed to.";
    MAX_RATE_HELD = "max_rate_held", "highest rate held", PerSecond, 0, Higher,
        "The highest rate of messages that was held: nothing lost, the bounds kept, all of it delivered in time.";
    PUBLISHED = "published", "messages", Count, 0, Neither, "Messages published in the measurement.";
    PUBLISHED_PER_SECOND = "published_per_second", "messages per second", PerSecond, 0, Neither,
        "Messages published per second of the measurement.";
    SECONDS = "seconds", "duration", Seconds, 2, Neither,
        "From the first message's due time to the last delivery.";
    DELIVERED = "delivered", "deliveries", Count, 0, Neither, "Messages that arrived, copies that came again not among them.";
    DELIVERIES_PER_SECOND = "deliveries_per_second", "deliveries per second", PerSecond, 0, Higher,
        "Deliveries over the duration; bound by the rate, unless messages are published as fast as they are taken.";
    LOST = "lost", "lost", Count, 0, Lower, "Messages that never came.";
    DOUBLED = "doubled", "doubled", Count, 0, Lower, "Messages that came again.";
    OUT_OF_ORDER = "out_of_order", "out of order", Count, 0, Lower, "Messages that came after a later one of their channel.";
    MISROUTED = "misrouted", "misrouted", Count, 0, Lower, "Messages of a channel that the session had not subscribed to.";
    STRAYS = "strays", "strays", Count, 0, Neither, "Publications from elsewhere, which are no fault.";
    UNHEARD = "unheard", "unheard", Count, 0, Lower, "Messages that no server had subscribed to, where the publisher's answer tells.";
    P50_US = "p50_us", "latency p50", Microseconds, 0, Lower, "Half of the messages were read at most this long after they were due.";
    P90_US = "p90_us", "latency p90", Microseconds, 0, Lower, "Latency of 90 % of the messages.";
    P99_US = "p99_us", "latency p99", Microseconds, 0, Lower, "Latency of 99 % of the messages.";
    P999_US = "p999_us", "latency p99.9", Microseconds, 0, Lower, "Latency of 99.9 % of the messages.";
    MAX_US = "max_us", "latency max", Microseconds, 0, Lower, "The longest latency.";
    PUBLISHER_LATE_US = "publisher_late_us", "publisher late by", Microseconds, 0, Neither,
        "The most that the publisher itself was late; part of the latencies.";
    CPU_US_PER_DELIVERY = "cpu_us_per_delivery", "server CPU per delivery", Microseconds, 3, Lower,
        "The server's CPU time, user and system, per delivery.";
    CPU_USER_US_PER_DELIVERY = "cpu_user_us_per_delivery", "  of it user", Microseconds, 3, Lower,
        "User part of the server's CPU time per delivery.";
    CPU_SYSTEM_US_PER_DELIVERY = "cpu_system_us_per_delivery", "  of it system", Microseconds, 3, Lower,
        "System part of the server's CPU time per delivery.";
    CPU_SECONDS = "cpu_seconds", "server CPU", Seconds, 2, Lower, "The server's CPU time over the measurement.";
    CONTEXT_SWITCHES_PER_SECOND = "context_switches_per_second", "server context switches per second", PerSecond, 0, Lower,
        "Context switches of the server's threads, voluntary or not.";
    REFUSED = "refused", "sessions refused", Count, 0, Lower, "Sessions that did not come up, or could not be reopened.";
    REOPENED = "reopened", "sessions reopened", Count, 0, Neither, "Sessions that were closed and reopened on purpose.";
    CONNECTS_PER_SECOND = "connects_per_second", "connects per second", PerSecond, 0, Higher,
        "Sessions that became ready per second while they were opened.";
    CONNECT_SECONDS = "connect_seconds", "time to connect all", Seconds, 2, Lower,
        "From the first connect to the last session's subscription.";
    CONNECT_P50_US = "connect_p50_us", "connect and subscribe p50", Microseconds, 0, Lower,
        "From the call of connect to the subscribe's reply, for half of the sessions.";
    CONNECT_P99_US = "connect_p99_us", "connect and subscribe p99", Microseconds, 0, Lower,
        "From the call of connect to the subscribe's reply, for 99 % of the sessions.";
    CONNECT_CPU_US = "connect_cpu_us", "server CPU per connect", Microseconds, 1, Lower,
        "The server's CPU time per session that connected and subscribed.";
    IDLE_CPU_PERCENT_PER_10000 = "idle_cpu_percent_per_10000", "idle CPU per 10,000 sessions", Percent, 2, Lower,
        "The server's CPU time while nothing is published, in hundredths of a core.";
    SERVER_RSS_BYTES = "server_rss_bytes", "server memory", Bytes, 0, Lower, "Resident memory of the server at the end.";
    BYTES_PER_SESSION = "bytes_per_session", "server memory per session", Bytes, 0, Lower,
        "Growth of the server's resident memory per session; kernel memory is not in it.";
    SOCKET_BYTES_PER_SESSION = "socket_bytes_per_session", "socket buffers per session", Bytes, 0, Lower,
        "Growth of the pages in TCP buffers of this machine per session, both ends where both are here.";
    KERNEL_BYTES_PER_SESSION = "kernel_bytes_per_session", "kernel slabs per session", Bytes, 0, Lower,
        "Growth of the kernel's slabs of this machine per session, both ends where both are here.";
    CLIENT_BYTES_PER_SESSION = "client_bytes_per_session", "client memory per session", Bytes, 0, Neither,
        "Growth of the load generator's own resident memory per session.";
    MACHINE_BYTES_PER_SESSION = "machine_bytes_per_session", "machine's memory per session", Bytes, 0, Lower,
        "Fall of the machine's available memory per session: kernel and user space, both ends where both are here.";
    USER_BYTES = "user_bytes", "memory of all sessions", Bytes, 0, Lower,
        "Growth of the resident memory of all servers and of the load generator since they held nothing.";
    HOLD_SECONDS = "hold_seconds", "held for", Seconds, 0, Neither, "Time that the sessions were held with heartbeats alone.";
    IDLE_CPU_PERCENT = "idle_cpu_percent", "idle CPU of all servers", Percent, 1, Lower,
        "The servers' CPU time while the sessions were held, in hundredths of a core.";
    BROADCAST_SECONDS = "broadcast_seconds", "time to reach everybody", Seconds, 3, Lower,
        "From a message's due time until the last session has read it; median of several messages.";
    BROADCAST_MAX_SECONDS = "broadcast_max_seconds", "  the longest", Seconds, 3, Lower,
        "From a message's due time until the last session has read it; the slowest of several messages.";
    KILLED_SESSIONS = "killed_sessions", "sessions of the killed server", Count, 0, Neither,
        "Sessions that ended with the server that was killed.";
    KILLED_SECONDS = "killed_seconds", "  all ended after", Seconds, 2, Lower,
        "From the kill until the last of them had read its end.";
    SURVIVORS_SECONDS = "survivors_seconds", "time to reach all others", Seconds, 3, Lower,
        "From the due time of a message after the kill until the last of the other sessions has read it.";
    STALLED_SESSIONS = "stalled_sessions", "stalled sessions", Count, 0, Neither, "Sessions that stopped reading.";
    CALM_P50_US = "calm_p50_us", "latency p50 undisturbed", Microseconds, 0, Lower,
        "Median of the same messages without the stalled sessions, or without the flood.";
    CALM_P99_US = "calm_p99_us", "latency p99 undisturbed", Microseconds, 0, Lower,
        "99th percentile of the same messages without the stalled sessions, or without the flood.";
    P99_SHIFT_MS = "p99_shift_ms", "rise of latency p99", Milliseconds, 1, Lower,
        "99th percentile with stalled sessions or a flood less that without, in milliseconds.";
    FLOOD_PUBLISHED = "flood_published", "flood: messages", Count, 0, Neither, "Messages to the flooded channel.";
    FLOOD_DELIVERIES_PER_SECOND = "flood_deliveries_per_second", "flood: deliveries per second", PerSecond, 0, Higher,
        "Deliveries of the flooded channel per second.";
    FLOOD_P99_US = "flood_p99_us", "flood: latency p99", Microseconds, 0, Lower,
        "Latency of 99 % of the flooded channel's messages.";
    FIRST_CLOSED_SECONDS = "first_closed_seconds", "first stalled session let go after", Seconds, 1, Neither,
        "When the server had let go of the first stalled session, from their subscription.";
    ALL_CLOSED_SECONDS = "all_closed_seconds", "all stalled sessions let go after", Seconds, 1, Neither,
        "When the server had let go of all stalled sessions, from their subscription.";
    BYTES_PER_STALLED = "bytes_per_stalled", "server memory per stalled session", Bytes, 0, Lower,
        "The most that the server's resident memory grew by, per stalled session.";
    CPU_OVER_FLOOR = "cpu_over_floor", "CPU per delivery over the floor's", Ratio, 2, Lower,
        "The server's CPU per delivery over that of a loop that only writes.";
    FLOOR_CPU_US_PER_DELIVERY = "floor_cpu_us_per_delivery", "floor: CPU per delivery", Microseconds, 3, Neither,
        "CPU per delivery of a loop that only writes.";
    BURST_CPU_US_PER_DELIVERY = "burst_cpu_us_per_delivery", "burst: CPU per delivery", Microseconds, 3, Lower,
        "The server's CPU per delivery, messages published as fast as they are taken.";
    FLOOR_BURST_CPU_US_PER_DELIVERY = "floor_burst_cpu_us_per_delivery", "floor: burst: CPU per delivery", Microseconds, 3,
        Neither, "The same of a loop that only writes.";
    BURST_CPU_OVER_FLOOR = "burst_cpu_over_floor", "burst: CPU per delivery over the floor's", Ratio, 2, Lower,
        "The ratio of the two.";
    BURST_DELIVERIES_PER_SECOND = "burst_deliveries_per_second", "burst: deliveries per second", PerSecond, 0, Higher,
        "Deliveries per second, messages published as fast as they are taken.";
}

impl Figure {
    /// The figure of that name, if this version knows it.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|figure| figure.name == name)
    }

    /// A value with its unit: `1,234 B`, `12.3 ms`. Whole microseconds and bytes take the unit that suits them.
    pub(crate) fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Microseconds if self.decimals == 0 => format::duration_us(value),
            Unit::Bytes => format::bytes(value),
            unit => {
                let number = format::grouped(value, self.decimals);
                match unit.sign() {
                    "" => number,
                    sign @ ("x" | "/s") => number + sign,
                    sign => format!("{number} {sign}"),
                }
            }
        }
    }
}

/// The figures of one run by name. A figure that was not measured is not there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Sets a figure. What is no number (a ratio of nothing, say) counts as not measured.
    pub(crate) fn set(&mut self, figure: &Figure, value: impl Into<Option<f64>>) {
        match value.into().filter(|value| value.is_finite()) {
            Some(value) => self.0.insert(figure.name.to_owned(), value),
            None => self.0.remove(figure.name),
        };
    }

    /// A figure's value, if it was measured.
    pub(crate) fn get(&self, figure: &Figure) -> Option<f64> {
        self.named(figure.name)
    }

    /// The same by name, for figures of a report that this version does not know.
    pub(crate) fn named(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Every name that has a value: known ones in the order of [`ALL`], then the others.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let known = ALL.iter().map(|figure| figure.name).filter(|name| self.0.contains_key(*name));
        known.chain(self.0.keys().map(String::as_str).filter(|name| Figure::named(name).is_none()))
    }

    /// A row for each figure: title and value.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        self.names().filter_map(|name| Some(vec![title(name).to_owned(), show(name, self.named(name)?)])).collect()
    }
}

/// The title of a figure, or the name of one that this version does not know.
pub(crate) fn title(name: &str) -> &str {
    Figure::named(name).map_or(name, |figure| figure.title)
}

/// A value with its unit, or as it is for a figure that this version does not know.
pub(crate) fn show(name: &str, value: f64) -> String {
    Figure::named(name).map_or_else(|| format::plain(value), |figure| figure.show(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_titles_are_unique_and_names_end_with_their_unit() {
        for (number, figure) in ALL.iter().enumerate() {
            let others = &ALL[number + 1..];
            assert!(others.iter().all(|other| other.name != figure.name && other.title != figure.title), "{figure:?}");
            let micro = figure.name.contains("_us");
            assert_eq!(micro, figure.unit == Unit::Microseconds, "{figure:?}");
            assert_eq!(figure.name.contains("bytes"), figure.unit == Unit::Bytes, "{figure:?}");
        }
    }

    #[test]
    fn a_value_shows_with_a_unit_that_suits_it() {
        assert_eq!(P99_US.show(461.4), "461 us");
        assert_eq!(P99_US.show(20_500.0), "20.5 ms");
        assert_eq!(CPU_US_PER_DELIVERY.show(0.1312), "0.131 us");
        assert_eq!(BYTES_PER_SESSION.show(1_312.4), "1,312 B");
        assert_eq!(SERVER_RSS_BYTES.show(f64::from(48 << 20)), "48.0 MiB");
        assert_eq!(DELIVERIES_PER_SECOND.show(5_200_000.0), "5,200,000/s");
        assert_eq!(CPU_OVER_FLOOR.show(1.04), "1.04x");
    }

    #[test]
    fn what_was_not_measured_is_no_figure() {
        let mut figures = Figures::default();
        figures.set(&P50_US, f64::NAN);
        figures.set(&P99_US, None);
        assert_eq!(figures, Figures::default());
        figures.set(&P99_US, 1.0);
        assert_eq!(figures.get(&P99_US), Some(1.0));
    }

    #[test]
    fn rows_come_in_the_order_of_the_table_and_unknown_figures_last() {
        let figures: Figures = serde_json::from_str(r#"{"p50_us":5,"a_future_figure":2.5,"sessions":10}"#).unwrap();
        let rows = figures.rows();
        assert_eq!(rows, [["sessions", "10"], ["latency p50", "5 us"], ["a_future_figure", "2.500"]]);
    }
}
