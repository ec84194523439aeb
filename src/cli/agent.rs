//! Talking to a running agent through its control socket: where it is, one request, the lines that come back.
//!
//! Shared by every command that needs a running agent; what they have in common is exit code 3 when there is none.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{ConfigFile, Exit};
use crate::config::ConfigErrors;
use crate::control::status::Status;
use crate::control::{PATH, Request};

/// Time without a line after which the agent counts as gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Which agent: the socket, else the one its configuration names, else /run/nodens/control.sock.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Agent {
    /// The agent's control socket.
    #[arg(long, value_name = "SOCKET")]
    pub(super) control: Option<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigFile,
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The configuration is wrong.
    Config(ConfigErrors),
    /// The output is closed, as by `| head`: nobody wants more.
    Enough,
    /// The agent refuses, or the output; the reason.
    Refused(String),
    /// No agent behind this socket.
    Unreachable(PathBuf, io::Error),
}

// === impl Agent ===

impl Agent {
    /// The agent's socket.
    ///
    /// # Errors
    /// [`Trouble::Config`] if the configuration has to be read for it, and cannot; [`Trouble::Refused`] if it has none.
    pub(super) fn socket(&self) -> Result<PathBuf, Trouble> {
        if let Some(control) = &self.control {
            return Ok(control.clone());
        }
        if let Some(file) = &self.config.config {
            let plan = self.config.load().map_err(Trouble::Config)?;
            return plan.http.control.clone().ok_or_else(|| {
                Trouble::Refused(format!(
                    "`http.control` is off in {}: this agent has no socket; set `http.control`, or name one with --control",
                    file.display()
                ))
            });
        }
        Ok(PATH.into())
    }
}

/// Sends `request` to the agent behind `socket`, hands each row to `on_row` as it arrives and returns the last line.
///
/// # Errors
/// [`Trouble`]: nobody there or gone before the last line, an error line, or an error of `on_row`.
pub(super) fn ask(
    socket: &Path,
    request: &Request,
    mut on_row: impl FnMut(&str, Value) -> Result<(), Trouble>,
) -> Result<Value, Trouble> {
    let gone = |error| Trouble::Unreachable(socket.to_owned(), error);
    let mut stream = UnixStream::connect(socket).map_err(gone)?;
    stream.set_read_timeout(Some(SILENCE)).map_err(gone)?;
    stream.set_write_timeout(Some(SILENCE)).map_err(gone)?;
    let line = serde_json::to_string(request).expect("a request is plain data");
    writeln!(stream, "{line}").map_err(gone)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(gone)?;
        let row: Value = serde_json::from_str(&line).map_err(|error| gone(error.into()))?;
        if let Some(error) = row.get("error") {
            return Err(Trouble::Refused(error.as_str().unwrap_or("no reason given").to_owned()));
        }
        if row.get("done").is_some() {
            return Ok(row);
        }
        on_row(&line, row)?;
    }
    Err(gone(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended early")))
}

/// How the agent behind `socket` stands.
///
/// # Errors
/// [`Trouble`]; an agent of another version, which knows no such request or answers it in other words, refuses.
pub(super) fn ask_status(socket: &Path) -> Result<Status, Trouble> {
    let mut end = ask(socket, &Request::Status, |_, _| Ok(()))?;
    serde_json::from_value(end["status"].take())
        .map_err(|error| Trouble::Refused(format!("the agent is of another version: {error}")))
}

// === impl Trouble ===

impl Trouble {
    /// How the command ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Refused(_) => Exit::Failed,
            Self::Enough => Exit::Done,
            Self::Unreachable(..) => Exit::Unreachable,
        }
    }

    /// Says it on standard error.
    pub(super) fn report(&self) -> Exit {
        match self {
            Self::Config(errors) => {
                anstream::eprintln!("{errors}");
                // It may run on an older one, and is asked why just then.
                anstream::eprintln!("the agent may be running all the same: name its socket with --control SOCKET");
            }
            Self::Enough => {}
            Self::Refused(_) | Self::Unreachable(..) => anstream::eprintln!("nodens: {self}"),
        }
        self.exit()
    }
}

/// An error of the output.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Enough,
            _ => Self::Refused(format!("the output cannot be written: {error}")),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => write!(f, "{errors}"),
            Self::Enough => f.write_str("the output is closed"),
            Self::Refused(why) => f.write_str(&printable(why)),
            Self::Unreachable(socket, error) => {
                let socket = printable(&socket.display().to_string());
                write!(f, "the agent at {socket} cannot be reached: {error}")?;
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => f.write_str(
                        "; is it running? (--control SOCKET or -c FILE say where; \
                         an agent without a file has no socket: give it `http: { control: PATH }`)",
                    ),
                    io::ErrorKind::PermissionDenied => f.write_str("; only its own user may"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// `text` without anything a terminal would act on: control characters as `\DDD` (RFC 1035 section 5.1).
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            write!(shown, "\\{:03}", u32::from(letter)).expect("a String takes every write");
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_socket_is_the_named_one_else_the_configured_one_else_the_usual_one() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let zones = "upstreams: { up: { servers: [192.0.2.1] } }\nzones: { \".\": { upstream: up } }\n";
        let with = file("with.yaml", &format!("{zones}http: {{ control: /a.sock }}\n"));
        let off = file("off.yaml", &format!("{zones}http: {{ control: off }}\n"));
        let wrong = file("wrong.yaml", "zone: 1\n");
        let find = |control: Option<&str>, config: Option<&Path>| {
            let config = ConfigFile { config: config.map(Path::to_owned) };
            Agent { control: control.map(PathBuf::from), config }.socket()
        };
        assert_eq!(find(Some("/b.sock"), Some(&with)).expect("named"), Path::new("/b.sock"));
        assert_eq!(find(None, Some(&with)).expect("configured"), Path::new("/a.sock"));
        assert_eq!(find(None, None).expect("the usual one"), Path::new("/run/nodens/control.sock"));
        let refused = find(None, Some(&off)).expect_err("no socket");
        assert_eq!(refused.exit(), Exit::Failed);
        assert!(refused.to_string().starts_with("`http.control` is off in "), "{refused}");
        assert_eq!(find(None, Some(&wrong)).expect_err("no such key").exit(), Exit::Failed);
    }
}
