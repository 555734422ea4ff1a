//! What no run can be made with. Every message names the setting by its flag; its key in a file is the same.

use super::{Kind, Layer, Settings};
use crate::client::target::MAX_SERVERS;
use crate::error::{Error, Result};
use crate::publisher::Backend;
use crate::stamp::{Format, MAX_CHANNELS, MIN_PAYLOAD};
use crate::wire::Wire;

/// The most channels of a distribution by popularity, which takes 8 B for each.
const MAX_POPULAR_CHANNELS: u32 = 1_000_000;
/// The most subscriptions of a session: what its opening commands take has to fit into a frame of 64 KiB.
const MAX_SUBSCRIPTIONS: u32 = 500;

/// The most client processes.
const MAX_PROCESSES: u32 = 1024;

/// Refuses settings that the scenario's kind would silently ignore.
pub(super) fn meaning(kind: Kind, flags: &Layer, file: &Layer, scenario: &str) -> Result<()> {
    let other = |key: &&&str| !kind.takes(key);
    if let Some(key) = flags.given().iter().find(other) {
        return Err(Error::Usage(format!(
            "--{} means nothing to a scenario of kind {}; it belongs to {}",
            key.replace('_', "-"),
            kind.name(),
            Kind::that_take(key).join(", ")
        )));
    }
    if let Some(key) = file.given().iter().find(other) {
        return Err(Error::Usage(format!(
            "{scenario}: {key} means nothing to a scenario of kind {}; it belongs to {}",
            kind.name(),
            Kind::that_take(key).join(", ")
        )));
    }
    Ok(())
}

/// Refuses values that no run can be made with.
pub(super) fn values(kind: Kind, settings: &Settings) -> Result<()> {
    connecting(kind, settings)?;
    if kind.publishes() {
        publishing(kind, settings)?;
    }
    for_kind(kind, settings)
}

fn connecting(kind: Kind, settings: &Settings) -> Result<()> {
    let (server, sessions) = (&settings.server, &settings.sessions);
    wanted(sessions.sessions >= 1, || "--sessions 0: at least one".to_owned())?;
    wanted((1..=64).contains(&sessions.threads), || format!("--threads {}: between 1 and 64", sessions.threads))?;
    wanted(sessions.processes <= MAX_PROCESSES, || {
        format!("--processes {}: between 0 and {MAX_PROCESSES}", sessions.processes)
    })?;
    wanted(server.server.len() <= MAX_SERVERS, || format!("--server: at most {MAX_SERVERS} times"))?;
    server.wire.check_channel(&sessions.channel).map_err(|fault| Error::Usage(format!("--channel: {fault}")))?;
    let sound = |path: &str| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    wanted(server.path.as_deref().is_none_or(sound), || {
        "--path: a path that starts with / and has no spaces".to_owned()
    })?;
    let subscriptions = sessions.subscriptions;
    wanted((1..=MAX_SUBSCRIPTIONS).contains(&subscriptions), || {
        format!("--subscriptions {subscriptions}: between 1 and {MAX_SUBSCRIPTIONS}")
    })?;
    wanted(subscriptions == 1 || server.wire.is_centrifuge(), || {
        format!("--subscriptions {subscriptions}: on this wire a session has one; take ws-json, ws-protobuf or tcp")
    })?;
    let channels = sessions.channels;
    let most = if kind == Kind::Mixed { MAX_POPULAR_CHANNELS } else { MAX_CHANNELS };
    wanted((1..=most).contains(&channels), || format!("--channels {channels}: between 1 and {most}"))?;
    let own = u64::from(sessions.sessions) * u64::from(subscriptions);
    let owned = kind == Kind::Unicast || sessions.own_channels;
    wanted(!owned || own <= u64::from(MAX_CHANNELS), || {
        format!(
            "--sessions {} with --subscriptions {subscriptions}: {MAX_CHANNELS} channels at most",
            sessions.sessions
        )
    })
}

fn publishing(kind: Kind, settings: &Settings) -> Result<()> {
    let messages = &settings.messages;
    let payload = messages.payload;
    wanted((MIN_PAYLOAD..=1 << 20).contains(&payload), || {
        format!("--payload {payload}: between {MIN_PAYLOAD} bytes, which the stamp takes, and 1048576")
    })?;
    wanted(messages.payload_format != Format::Text || messages.publish != Backend::Api, || {
        "--payload-format text: the HTTP API carries JSON; take string, or --publish redis".to_owned()
    })?;
    let total = messages.rate * messages.seconds;
    let countable = messages.rate > 0.0 && messages.seconds > 0.0 && total >= 1.0 && total < f64::from(u32::MAX);
    wanted(!kind.has_rate() || messages.burst.is_some() && kind != Kind::CompareFloor || countable, || {
        format!("--rate {} for --seconds {}: between 1 and 4294967294 messages in all", messages.rate, messages.seconds)
    })?;
    let warm_up = messages.warm_up;
    wanted((0.0..=3600.0).contains(&warm_up), || format!("--warm-up {warm_up}: between 0 and 3600 seconds"))?;
    wanted((0.0..=10.0).contains(&messages.zipf), || format!("--zipf {}: between 0 and 10", messages.zipf))?;
    let needs_pid =
        settings.bounds.max_cpu_us_per_delivery.is_some() || settings.bounds.max_bytes_per_stalled.is_some();
    wanted(!needs_pid || !settings.server.server_pid.is_empty(), || {
        "a bound on the server's CPU or memory needs --server-pid".to_owned()
    })?;
    let search = messages.find_max_rate;
    wanted(!search || messages.burst.is_none(), || "--find-max-rate looks for a rate: leave --burst".to_owned())?;
    wanted(search || messages.max_rate.or(settings.bounds.min_rate_held).is_none(), || {
        "--max-rate and --min-rate-held belong to --find-max-rate".to_owned()
    })?;
    wanted(messages.max_rate.is_none_or(|most| most > messages.rate && most <= 1e9), || {
        "--max-rate: above --rate, and 1e9 at most".to_owned()
    })
}

fn for_kind(kind: Kind, settings: &Settings) -> Result<()> {
    let (server, sessions, messages, bounds) =
        (&settings.server, &settings.sessions, &settings.messages, &settings.bounds);
    match kind {
        Kind::Idle => {
            wanted(!server.server_pid.is_empty(), || {
                "--server-pid: memory is read from the server's process, name it".to_owned()
            })?;
            wanted(sessions.base >= 1 && sessions.sessions > sessions.base, || {
                format!("--sessions {} must be above --base {}, and that above 0", sessions.sessions, sessions.base)
            })
        }
        Kind::Hold => {
            wanted(!server.server_pid.is_empty(), || {
                "--server-pid: memory is read from the servers' processes, name them".to_owned()
            })?;
            wanted(sessions.hold >= 1, || "--hold 0: at least a second".to_owned())?;
            wanted((1..=1000).contains(&messages.broadcasts), || "--broadcasts: between 1 and 1000".to_owned())?;
            let each = server.server.len() >= 2 && server.server.len() == server.server_pid.len();
            wanted(!sessions.kill || each, || {
                "--kill ends the last server: give at least two by --server, and the process of each by --server-pid, \
                 in the same order"
                    .to_owned()
            })
        }
        Kind::Storm => wanted(bounds.max_connect_cpu_us.is_none() || !server.server_pid.is_empty(), || {
            "--max-connect-cpu-us needs --server-pid".to_owned()
        }),
        Kind::Churn => wanted(sessions.churn > 0.0 && sessions.churn <= 10.0, || {
            format!("--churn {}: a share of the sessions per second, above 0 and at most 10", sessions.churn)
        }),
        Kind::Slow => {
            wanted(sessions.stalled >= 1, || "--stalled 0: at least one".to_owned())?;
            wanted(server.metrics.is_none() || bounds.require_code.is_some(), || {
                "--metrics counts the sessions closed with a code: name it by --require-code".to_owned()
            })
        }
        Kind::Hot => {
            wanted((1..=1_000_000).contains(&sessions.small_channels), || {
                "--small-channels: between 1 and 1000000".to_owned()
            })?;
            wanted((0.0..=1e6).contains(&messages.flood_rate), || "--flood-rate: between 0 and 1000000".to_owned())
        }
        Kind::CompareFloor => {
            wanted(!server.server_pid.is_empty(), || "--server-pid: name the server's process".to_owned())?;
            wanted(server.wire == Wire::WsJson && messages.publish == Backend::Redis, || {
                "the floor speaks ws-json and listens to Redis: leave --wire and --publish".to_owned()
            })?;
            wanted((1..=100).contains(&messages.rounds), || "--rounds: between 1 and 100".to_owned())?;
            let bound = bounds.max_burst_ratio.or(bounds.min_deliveries_per_second);
            wanted(bound.is_none() || messages.burst.is_some_and(|burst| burst > 0), || {
                "bounds on the burst need --burst".to_owned()
            })
        }
        Kind::Broadcast | Kind::Unicast | Kind::Mixed => {
            wanted(messages.burst != Some(0), || "--burst 0: at least one message".to_owned())
        }
    }
}

fn wanted(condition: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::Usage(otherwise())) }
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::resolve;

    fn refused(kind: &str, flags: &[&str]) -> String {
        resolve(&format!("kind = \"{kind}\""), flags).unwrap_err().to_string()
    }

    #[test]
    fn a_flag_that_means_nothing_to_the_kind_is_refused_with_the_kinds_that_it_belongs_to() {
        let text = refused("idle", &["--server-pid", "1", "--rate", "5"]);
        assert!(
            text.contains("--rate means nothing") && text.contains("kind idle") && text.contains("broadcast"),
            "{text}"
        );
        let error = resolve("kind = \"storm\"\n[messages]\nrate = 5\n", &[]).unwrap_err().to_string();
        assert!(error.contains("test: rate means nothing to a scenario of kind storm"), "{error}");
    }

    #[test]
    fn rates_that_publish_nothing_or_without_end_are_refused() {
        assert!(resolve("kind = \"broadcast\"", &["--rate", "10", "--seconds", "20"]).is_ok());
        for (rate, seconds) in [("0", "1"), ("-1", "1"), ("1", "0"), ("NaN", "1"), ("1e9", "1e9")] {
            let rate = format!("--rate={rate}");
            assert!(refused("broadcast", &[&rate, "--seconds", seconds]).contains("messages in all"), "{rate}");
        }
    }

    #[test]
    fn a_bound_that_cannot_be_measured_is_refused_before_the_run() {
        assert!(refused("broadcast", &["--max-cpu-us-per-delivery", "5"]).contains("--server-pid"));
        assert!(refused("slow", &["--metrics", "127.0.0.1:1"]).contains("--require-code"));
        assert!(refused("broadcast", &["--min-rate-held", "5"]).contains("--find-max-rate"));
    }

    #[test]
    fn values_out_of_their_range_are_refused_with_the_range() {
        for (kind, flag, value, wanted) in [
            ("broadcast", "--payload", "10", "the stamp takes"),
            ("broadcast", "--sessions", "0", "at least one"),
            ("broadcast", "--threads", "0", "between 1 and 64"),
            ("broadcast", "--channel", "a b", "printable ASCII"),
            ("broadcast", "--processes", "1025", "between 0 and 1024"),
            ("broadcast", "--path", "x", "starts with /"),
            ("broadcast", "--subscriptions", "501", "between 1 and 500"),
            ("broadcast", "--burst", "0", "at least one message"),
            ("mixed", "--zipf", "-1", "between 0 and 10"),
            ("churn", "--churn", "0", "above 0"),
            ("slow", "--stalled", "0", "at least one"),
            ("hot", "--small-channels", "0", "between 1 and"),
            ("hold", "--sessions", "5", "--server-pid"),
        ] {
            let flag = format!("{flag}={value}");
            assert!(refused(kind, &[&flag]).contains(wanted), "{kind} {flag}");
        }
    }
}
