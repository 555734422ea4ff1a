//! How many connections a server says that it has closed with a code: its Prometheus metrics.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::{Context, Error, Result};
use crate::publisher::connect;

/// The longest page that is read.
const MAX_PAGE: u64 = 8 << 20;

/// A server's `/metrics`, asked for one code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metrics {
    address: SocketAddr,
    code: u16,
}

impl Metrics {
    /// The metrics at this address.
    pub(crate) fn new(address: SocketAddr, code: u16) -> Self {
        Self { address, code }
    }

    /// Connections closed with the code since the server started.
    ///
    /// # Errors
    /// A page that cannot be read, or has no such counter.
    pub(crate) fn closed(&self) -> Result<u64> {
        let page = self.page()?;
        sum(&page, self.code).ok_or_else(|| {
            Error::Run(format!("http://{}/metrics has no counter of disconnects with code {}", self.address, self.code))
        })
    }

    fn page(&self) -> Result<String> {
        let name = format!("the metrics at {}", self.address);
        let mut stream = connect(&self.address.to_string(), &name)?;
        let timeout = Some(Duration::from_secs(5));
        let read = || format!("cannot read {name}");
        stream.set_read_timeout(timeout).context(read)?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).context(read)?;
        let mut page = String::new();
        stream.take(MAX_PAGE).read_to_string(&mut page).context(read)?;
        Ok(page)
    }
}

/// Adds up the samples whose name speaks of disconnects and whose label `code` is this; `None` without any.
fn sum(page: &str, code: u16) -> Option<u64> {
    let label = format!("code=\"{code}\"");
    page.lines()
        .filter(|line| !line.starts_with('#') && line.contains("disconnect") && line.contains(&label))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .map(|value| value as u64)
        .reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP gateway_disconnects_total code=\"3008\"\n\
        gateway_disconnects_total{shard=\"0\",code=\"3008\"} 4\n\
        gateway_disconnects_total{shard=\"1\",code=\"3008\"} 3\n\
        gateway_disconnects_total{shard=\"1\",code=\"3012\"} 9\n\
        gateway_errors_total{code=\"3008\"} 50\n";

    #[test]
    fn the_samples_of_one_code_are_added_up_and_no_others() {
        assert_eq!(sum(PAGE, 3008), Some(7));
        assert_eq!(sum(PAGE, 3012), Some(9));
        assert_eq!(sum(PAGE, 3001), None);
    }
}
