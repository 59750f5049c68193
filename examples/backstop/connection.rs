//! From the global options to a repository.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use backstop::{CreateOptions, OpenOptions, Repository};
use clap::CommandFactory;
use clap::error::ErrorKind;

use crate::arguments::{Arguments, Global};
use crate::human;
use crate::secret;
use crate::trouble::Trouble;

/// The repository that the command works on, which knows in the end what it had to put aside.
static OPENED: OnceLock<Repository> = OnceLock::new();

/// Opens the repository that the options name.
pub(crate) async fn open(global: &Global) -> Result<Repository, Trouble> {
    let location = location(global);
    let secret = secret::existing(global).await?;
    let repository = Repository::open(location, &secret, options(global)).await?;
    Ok(OPENED.get_or_init(|| repository).clone())
}

/// Says on standard error how many objects couldn't be used and were put aside, once a command is done; the log has named
/// them. Whether there were any.
pub(crate) fn tell_put_aside() -> bool {
    let aside = OPENED.get().map(Repository::put_aside).unwrap_or_default();
    if aside.is_empty() {
        return false;
    }
    let count = human::counted(aside.len() as u64, "object was", "objects were");
    let hint = "something newer may be hidden behind what can't be used; run `backstop check`";
    drop(writeln!(std::io::stderr(), "warning: {count} put aside\n  hint: {hint}"));
    true
}

/// Opens a copy of the repository, with the same secret.
pub(crate) async fn open_other(global: &Global, location: &str) -> Result<Repository, Trouble> {
    let secret = secret::existing(global).await?;
    Ok(Repository::open(location, &secret, options(global)).await?)
}

/// Creates a repository where the options say.
pub(crate) async fn create(global: &Global, label: &str) -> Result<Repository, Trouble> {
    let location = location(global);
    let secret = secret::first(global).await?;
    let options = CreateOptions::default().with_label(label).with_open(options(global));
    Ok(Repository::create(location, &secret, options).await?)
}

/// Where the repository is; not to say so is wrong usage.
pub(crate) fn location(global: &Global) -> &str {
    match &global.repository {
        Some(location) => location,
        None => Arguments::command()
            .error(
                ErrorKind::MissingRequiredArgument,
                "no repository was given; use --repository URL, or set BACKSTOP_REPOSITORY",
            )
            .exit(),
    }
}

fn options(global: &Global) -> OpenOptions {
    let mut options = OpenOptions::default();
    if let Some(folder) = cache_folder(global) {
        options = options.with_cache(folder);
    }
    if let Some(fingerprint) = global.fingerprint {
        options = options.with_fingerprint(fingerprint);
    }
    if global.single_writer { options.with_single_writer() } else { options }
}

fn cache_folder(global: &Global) -> Option<PathBuf> {
    if global.no_cache {
        return None;
    }
    let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let standard = || folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    global.cache_dir.clone().or_else(|| standard().map(|folder| folder.join("backstop")))
}
