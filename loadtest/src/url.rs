//! Where a backend is and who logs in there.

/// `scheme://[[user]:password@]host[:port][/path]`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `host:port`
    pub(crate) address: String,
    /// Empty for the default user.
    pub(crate) user: String,
    /// The password, if there is one.
    pub(crate) password: Option<String>,
    /// From the first slash on; empty without one.
    pub(crate) path: String,
}

impl Url {
    /// Reads a URL of this scheme; `port` is the one where it names none.
    ///
    /// # Errors
    /// Says what such a URL looks like. The URL itself is not repeated: it may hold a password.
    pub(crate) fn parse(url: &str, scheme: &str, port: u16) -> Result<Self, String> {
        let wrong = || format!("a URL here looks like {scheme}://127.0.0.1:{port}");
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).ok_or_else(wrong)?;
        if rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(format!("{}, without spaces", wrong()));
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (login, host) = authority.rsplit_once('@').map_or((None, authority), |(login, host)| (Some(login), host));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
            None => (String::new(), None),
        };
        if host.is_empty() || host.starts_with(':') {
            return Err(format!("{}; this one has no host", wrong()));
        }
        let named_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if named_port { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Self { address, user, password, path: path.to_owned() })
    }

    /// User and password, if there are any.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        self.password.as_deref().map(|password| (self.user.as_str(), password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_login_and_path() {
        let url = Url::parse("redis://me:se:cret@redis.test:7000/0", "redis", 6379).unwrap();
        assert_eq!((url.address.as_str(), url.path.as_str()), ("redis.test:7000", "/0"));
        assert_eq!(url.login(), Some(("me", "se:cret")));
        let url = Url::parse("http://localhost/pub?x=1", "http", 80).unwrap();
        assert_eq!((url.address.as_str(), url.path.as_str(), url.login()), ("localhost:80", "/pub?x=1", None));
        assert_eq!(Url::parse("mqtt://[::1]:1884", "mqtt", 1883).unwrap().address, "[::1]:1884");
    }

    #[test]
    fn another_scheme_spaces_and_a_missing_host_are_refused_without_showing_the_password() {
        for wrong in
            ["rediss://me:secret@localhost", "redis://:secret@", "redis://me:secret@a b", "localhost", "redis://:6379"]
        {
            let error = Url::parse(wrong, "redis", 6379).unwrap_err();
            assert!(error.contains("redis://127.0.0.1:6379") && !error.contains("secret"), "{error}");
        }
    }
}
