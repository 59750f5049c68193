//! Why a command failed, told with all causes and with what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::{human, json, status};

/// The end of a command that failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    message: String,
    /// What made it fail, outermost first.
    causes: Vec<String>,
    /// What to do about it.
    hint: Option<String>,
    status: u8,
    closed_output: bool,
}

impl Trouble {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), causes: vec![], hint: None, status: status::FAILED, closed_output: false }
    }

    /// With an error and everything that caused it.
    pub(crate) fn caused_by(mut self, error: impl Error + 'static) -> Self {
        self.causes = chain(&error);
        self
    }

    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Ends the process with another status.
    pub(crate) fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Whether whoever reads the output has gone away.
    pub(crate) fn is_closed_output(&self) -> bool {
        self.closed_output
    }

    /// Tells people on standard error, and programs on standard output if they listen.
    pub(crate) fn report(&self, as_json: bool) -> ExitCode {
        let mut text = format!("error: {}", human::visible(&self.message));
        for cause in &self.causes {
            text.push_str(&format!("\n  caused by: {}", human::visible(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n  hint: {}", human::visible(hint)));
        }
        drop(io::Write::write_all(&mut io::stderr(), format!("{text}\n").as_bytes()));
        if as_json {
            let line = format!("{}\n", json::line(&json::error(&self.message, &self.causes, self.hint.as_deref())));
            drop(io::Write::write_all(&mut io::stdout(), line.as_bytes()));
        }
        ExitCode::from(self.status)
    }
}

impl From<backstop::Error> for Trouble {
    fn from(error: backstop::Error) -> Self {
        let mut messages = chain(&error);
        let message = messages.remove(0);
        Self { causes: messages, hint: advice(&error).map(str::to_owned), ..Self::new(message) }
    }
}

/// An error of standard output.
impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        let closed_output = error.kind() == io::ErrorKind::BrokenPipe;
        Self { closed_output, ..Self::new("could not write to standard output").caused_by(error) }
    }
}

/// An error and everything that caused it; a cause that the one before it quotes isn't said twice.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let message = error.to_string();
        if messages.last().is_none_or(|last| !last.contains(&message)) {
            messages.push(message);
        }
        next = error.source();
    }
    messages
}

/// Whether a full disk is the cause.
pub(crate) fn is_storage_full(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// What to do on this command line; what holds everywhere is in the library's messages.
fn advice(error: &backstop::Error) -> Option<&'static str> {
    match error {
        backstop::Error::NotFound { object } if object.starts_with("a repository at") => {
            Some("check the URL, or create a repository there with `backstop init`")
        }
        backstop::Error::File { operation: "open the repository", .. } if error.is_not_found() => {
            Some("check the path, or create a repository there with `backstop init`")
        }
        backstop::Error::NotFound { object } if object.contains("snapshot") => {
            Some("`backstop snapshots` lists what there is, with --forgotten what can be undeleted")
        }
        backstop::Error::WrongSecret { .. } => Some(
            "check --passphrase-file, --key-file, BACKSTOP_PASSPHRASE and BACKSTOP_KEY_FILE, and the repository's URL",
        ),
        backstop::Error::Conflict { reason, .. } if reason.contains("plan anew") => {
            Some("run the command again; it plans anew")
        }
        backstop::Error::AppendOnly { .. } => Some("`backstop key list` shows which keys may do all"),
        backstop::Error::UnsafeStore { .. } => Some("single-writer mode is --single-writer"),
        backstop::Error::Store { retryable: true, .. } => {
            Some("run the command again; what was stored isn't sent twice")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug)]
        struct Outer(io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "outer: {}", self.0)
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(chain(&Outer(io::Error::other("inner"))), ["outer: inner"]);
        assert!(Trouble::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_closed_output());
        assert!(!Trouble::from(io::Error::other("full")).is_closed_output());
    }
}
