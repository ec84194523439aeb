//! Talking to a running agent through its control socket: where it is, one request, the lines that come back.
//!
//! Shared by every command that needs a running agent; what they have in common is exit code 3 when there is none.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::control::{PATH, Request};

/// Time without a line after which the agent counts as gone.
const SILENCE: Duration = Duration::from_secs(15);

/// How to find the agent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Agent {
    /// Control socket of the agent [default: `http.control` of the configuration, else /run/nodens/control.sock]
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// Configuration the agent runs with
    #[arg(short, long, value_name = "FILE", env = "NODENS_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub enum Trouble {
    /// The output is closed, as by `| head`: nobody wants more.
    Enough,
    /// The agent refuses, the configuration does, or the output; the reason.
    Refused(String),
    /// No agent behind this socket.
    Unreachable(PathBuf, io::Error),
}

// === impl Agent ===

impl Agent {
    /// The agent's socket. `configured` reads `http.control` from a configuration file.
    ///
    /// # Errors
    /// [`Trouble::Refused`] if the configuration cannot be read.
    pub fn socket(
        &self,
        configured: impl FnOnce(&Path) -> Result<Option<PathBuf>, String>,
    ) -> Result<PathBuf, Trouble> {
        let default = || PathBuf::from(PATH);
        match (&self.control, &self.config) {
            (Some(control), _) => Ok(control.clone()),
            (None, Some(file)) => Ok(configured(file).map_err(Trouble::Refused)?.unwrap_or_else(default)),
            (None, None) => Ok(default()),
        }
    }
}

/// Sends `request` to the agent behind `socket`, hands each row to `on_row` as it arrives and returns the last line.
///
/// # Errors
/// [`Trouble`]: nobody there or gone before the last line, an error line, or an error of `on_row`.
pub fn ask(
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

// === impl Trouble ===

impl Trouble {
    /// Exit status: 0 done, 1 wrong input, 3 the agent cannot be reached.
    pub fn status(&self) -> u8 {
        match self {
            Self::Enough => 0,
            Self::Refused(_) => 1,
            Self::Unreachable(..) => 3,
        }
    }

    /// Says it in one line on standard error and becomes the exit code.
    pub fn report(&self) -> ExitCode {
        if !matches!(self, Self::Enough) {
            // With standard error closed as well there is nobody to tell.
            let _ = writeln!(anstream::stderr(), "nodens: {self}");
        }
        self.status().into()
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
            Self::Enough => f.write_str("the output is closed"),
            Self::Refused(why) => f.write_str(&printable(why)),
            Self::Unreachable(socket, error) => {
                let socket = printable(&socket.display().to_string());
                write!(f, "the agent at {socket} cannot be reached: {error}")?;
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        f.write_str("; is it running? (--control SOCKET or -c FILE say where)")
                    }
                    io::ErrorKind::PermissionDenied => f.write_str("; only its own user may"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// `text` without anything a terminal would act on: control characters as `\DDD` (RFC 1035 section 5.1).
pub fn printable(text: &str) -> String {
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
