//! What every scenario is made of, by its settings: sessions, a publisher, a load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::client::layout::Layout;
use crate::client::room::Room;
use crate::client::target::Target;
use crate::client::{Crew, Fleet, Opening};
use crate::error::Result;
use crate::monitor::Monitor;
use crate::probe::Probe;
use crate::publisher::{self, Dialect, Draw};
use crate::scenario::measure::Load;
use crate::settings::Settings;

/// A run's settings, and who watches it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    /// What the run goes by.
    pub(super) settings: &'a Settings,
    /// Progress and timeline.
    pub(super) monitor: &'a Monitor,
    /// The server's processes, if they are known.
    pub(super) probe: Option<&'a Probe>,
}

impl Stage<'_> {
    /// Where that many sessions connect to.
    ///
    /// # Errors
    /// A machine that has no room for them.
    pub(super) fn target(&self, layout: Layout, sessions: u32) -> Result<Target> {
        let (server, settings) = (&self.settings.server, &self.settings.sessions);
        let port = server.wire.port();
        let servers: Vec<SocketAddr> =
            if server.server.is_empty() { vec![([127, 0, 0, 1], port).into()] } else { server.server.clone() };
        let path = server.path.as_deref().unwrap_or(server.wire.path());
        let mut target = Target::new(servers, server.wire, path, &settings.channel, layout);
        let processes = self.crew(sessions).processes;
        target.spread_sources(settings.sources, sessions, processes);
        Room::read().check(sessions, processes, &target)?;
        Ok(target)
    }

    /// Who holds that many sessions.
    fn crew(&self, sessions: u32) -> Crew {
        let settings = &self.settings.sessions;
        let processes = if settings.processes == 0 { Room::read().processes(sessions) } else { settings.processes };
        Crew { processes, threads: settings.threads }
    }

    /// Starts who will hold that many sessions; none is open yet.
    ///
    /// # Errors
    /// What the system refuses.
    pub(super) fn fleet(&self, target: &Target, sessions: u32) -> Result<Fleet> {
        let fleet = Fleet::start(target.clone(), self.crew(sessions))?;
        self.monitor.watch_sessions(fleet.counters(), sessions);
        Ok(fleet)
    }

    /// How to open a group of sessions.
    pub(super) fn opening(&self, sessions: u32) -> Opening {
        let settings = &self.settings.sessions;
        Opening {
            sessions,
            stalled: false,
            rate: settings.connect_rate,
            in_flight: settings.in_flight,
            patience: Duration::from_secs(settings.connect_timeout.max(1).into()),
            tolerated: 0,
        }
    }

    /// Who takes the messages.
    ///
    /// # Errors
    /// A URL that is none.
    pub(super) fn dialect(&self) -> Result<Box<dyn Dialect>> {
        publisher::dialect(&self.settings.messages)
    }

    /// The messages of the settings, to the channels of a target, of whose sessions the first `readers` read.
    pub(super) fn load(&self, label: &'static str, target: &Target, readers: u32) -> Load {
        let messages = &self.settings.messages;
        let draw = match target.layout.popularity() {
            Some(zipf) => Draw::Popular(Arc::clone(zipf)),
            None => Draw::InTurn,
        };
        Load {
            label,
            channels: target.channel_names(),
            subscribers: target.layout.subscribers(readers).into(),
            draw,
            payload: messages.payload,
            format: messages.payload_format,
            messages: (messages.rate * messages.seconds).round() as u64,
            rate: Some(messages.rate),
            churn: 0.0,
            grace: Duration::from_secs(messages.grace.max(1).into()),
        }
    }
}
