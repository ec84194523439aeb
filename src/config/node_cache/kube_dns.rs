//! The ConfigMap of kube-dns, as a directory of files: stub domains, and the servers of everything else.
//!
//! Checked as node-cache does, and where it lets something past that CoreDNS then dies of, that too.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::super::MAX_FILE;

/// Servers for everything else, at most.
const MAX_NAMESERVERS: usize = 3;
/// Servers of a stub domain, at most: what a group can have.
const MAX_SERVERS: usize = crate::plan::MAX_SERVERS;

/// What the ConfigMap says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KubeDns {
    /// Domains with servers of their own.
    pub stub_domains: BTreeMap<String, Vec<String>>,
    /// The servers of everything else; empty: those in /etc/resolv.conf.
    pub upstream_nameservers: Vec<String>,
}

impl KubeDns {
    /// The files that are read in `directory`.
    pub fn files(directory: &Path) -> [PathBuf; 2] {
        ["stubDomains", "upstreamNameservers"].map(|name| directory.join(name))
    }

    /// Reads the ConfigMap mounted at `directory`, by `read`; a file that is not there says nothing.
    ///
    /// # Errors
    /// The first thing wrong in it, in words.
    pub fn read(directory: &Path, read: &dyn Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Self, String> {
        let [stub_domains, upstream_nameservers] = Self::files(directory);
        let kube_dns = Self {
            stub_domains: value(&stub_domains, "a map of domains to lists of servers", read)?,
            upstream_nameservers: value(&upstream_nameservers, "a list of servers", read)?,
        };
        kube_dns.check()?;
        Ok(kube_dns)
    }

    fn check(&self) -> Result<(), String> {
        for (domain, servers) in &self.stub_domains {
            if !is_dns_1123(domain) {
                return Err(format!("stubDomains: `{domain}` is no domain name in lower case"));
            }
            if servers.is_empty() || servers.len() > MAX_SERVERS {
                return Err(format!("stubDomains: `{domain}` needs 1 to {MAX_SERVERS} servers"));
            }
            if let Some(server) = servers.iter().find(|server| !is_server(server)) {
                return Err(format!("stubDomains: `{domain}` has `{server}`, which is no IP or IP:port"));
            }
        }
        if self.upstream_nameservers.len() > MAX_NAMESERVERS {
            return Err(format!("upstreamNameservers: more than {MAX_NAMESERVERS} servers"));
        }
        if let Some(server) = self.upstream_nameservers.iter().find(|server| !is_server(server)) {
            return Err(format!("upstreamNameservers: `{server}` is no IP or IP:port"));
        }
        Ok(())
    }
}

fn value<T: serde::de::DeserializeOwned + Default>(
    path: &Path,
    shape: &str,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<T, String> {
    let shown = path.display();
    let octets = match read(path) {
        Ok(octets) if octets.len() <= MAX_FILE => octets,
        Ok(_) => return Err(format!("{shown} is larger than 1MiB")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(format!("{shown} cannot be read: {error}")),
    };
    let text = String::from_utf8(octets).map_err(|_| format!("{shown} is no text in UTF-8"))?;
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(&text).map_err(|error| format!("{shown} is not {shape} in JSON: {error}"))
}

/// A DNS-1123 subdomain, as Kubernetes calls it.
fn is_dns_1123(domain: &str) -> bool {
    let alphanumeric = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit();
    (1..=253).contains(&domain.len())
        && domain.split('.').all(|label| {
            let octets = label.as_bytes();
            (1..=63).contains(&octets.len())
                && octets.iter().all(|&octet| alphanumeric(octet) || octet == b'-')
                && alphanumeric(octets[0])
                && alphanumeric(octets[octets.len() - 1])
        })
}

fn is_server(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stub_domains: &[u8], nameservers: &[u8]) -> Result<KubeDns, String> {
        KubeDns::read(Path::new("/k"), &|path| match path.to_str() {
            Some("/k/stubDomains") if !stub_domains.is_empty() => Ok(stub_domains.to_vec()),
            Some("/k/upstreamNameservers") if !nameservers.is_empty() => Ok(nameservers.to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    #[test]
    fn an_empty_directory_says_nothing() {
        assert_eq!(read(b"", b""), Ok(KubeDns::default()));
        assert_eq!(read(b" \n", b"[]"), Ok(KubeDns::default()));
    }

    // incumbent.md section 1.6
    #[test]
    fn stub_domains_and_nameservers_are_read() {
        let kube_dns = read(
            br#"{"acme.local": ["1.2.3.4", "5.6.7.8:5353"], "v6.local": ["fd00::1", "[fd00::2]:53"]}"#,
            br#"["8.8.8.8", "8.8.4.4:53", "2001:db8::1"]"#,
        );
        let kube_dns = kube_dns.expect("legal");
        assert_eq!(kube_dns.stub_domains["acme.local"], ["1.2.3.4", "5.6.7.8:5353"]);
        assert_eq!(kube_dns.stub_domains["v6.local"].len(), 2);
        assert_eq!(kube_dns.upstream_nameservers.len(), 3);
    }

    #[test]
    fn what_node_cache_refuses_is_refused() {
        for (stub_domains, nameservers) in [
            (&br#"{"acme.local": ["dns.example.com"]}"#[..], &b""[..]),
            (br#"{"Acme": ["1.2.3.4"]}"#, b""),
            (br#"{"-a.b": ["1.2.3.4"]}"#, b""),
            (br#"{"a..b": ["1.2.3.4"]}"#, b""),
            (br#"{"a b {\n}": ["1.2.3.4"]}"#, b""),
            (br#"{"acme.local": []}"#, b""),
            (br#"{"acme.local": ["1.2.3.4:99999"]}"#, b""),
            (br#"{"acme.local": ["1.2.3.4 { except . }"]}"#, b""),
            (br#"{"acme.local": "1.2.3.4"}"#, b""),
            (b"{", b""),
            (b"\xff\xfe", b""),
            (b"", br#"["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]"#),
            (b"", br#"["localhost"]"#),
            (b"", br#"{"a": 1}"#),
        ] {
            assert!(read(stub_domains, nameservers).is_err(), "{}", String::from_utf8_lossy(stub_domains));
        }
        let unreadable = KubeDns::read(Path::new("/k"), &|_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(unreadable.expect_err("nobody may").contains("cannot be read"));
    }
}
