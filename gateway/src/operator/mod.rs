//! The operators' port: `/metrics` and `/health/*`, on a listener of its own.
//!
//! Whatever counts, counts into plain atomics that it owns; nothing here is on a message's way.
//! A scrape copies them into the tree of series that was registered at start.
//!
//! - [`routes`]: the axum router;
//! - [`tree`]: every metric there is, with its name, help, labels and where its value comes from
//!   (`docs/metrics.md` is the user's page, and a test holds the two together);
//! - `broker`: those of the broker; `histories`: those of the embedded broker's log;
//! - [`series`]: how a series is registered; [`text`]: Prometheus text for what the exporter cannot take:
//!   histograms that are counted already, and counters of seconds;
//! - [`process`]: what the kernel says of the process;
//! - [`health`]: live, ready, started, and why not.

mod broker;
pub mod health;
mod histories;
pub mod process;
pub mod routes;
pub mod series;
pub mod text;
pub mod tree;

pub use health::{HealthSources, Lifecycle};
pub use routes::{Operator, Paths, router};
pub use tree::{Metrics, Sources};
