//! Where the secret that opens a repository comes from.

use std::io::{self, IsTerminal};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backstop::Secret;
use zeroize::Zeroizing;

use crate::arguments::{Global, KeyAddArguments};
use crate::human;
use crate::trouble::Trouble;

/// The bits of a mode that let group and others read.
const READABLE_BY_OTHERS: u32 = 0o044;

/// The passphrase itself.
const PASSPHRASE: &str = "BACKSTOP_PASSPHRASE";
/// The path of a file with a key.
const KEY_FILE: &str = "BACKSTOP_KEY_FILE";

/// The secret of an existing repository.
pub(crate) async fn existing(global: &Global) -> Result<Secret, Trouble> {
    match given(global).await? {
        Some(secret) => Ok(secret),
        None => prompt("passphrase: ", false).await,
    }
}

/// The secret of a repository that is created: what is typed is typed twice.
pub(crate) async fn first(global: &Global) -> Result<Secret, Trouble> {
    match given(global).await? {
        Some(secret) => Ok(secret),
        None => prompt("passphrase for the new repository: ", true).await,
    }
}

/// A secret to add.
pub(crate) async fn added(arguments: &KeyAddArguments) -> Result<Secret, Trouble> {
    match (&arguments.new_key_file, &arguments.new_passphrase_file) {
        (Some(file), _) => read_key(file).await,
        (None, Some(file)) => read_passphrase(file).await,
        (None, None) if io::stdin().is_terminal() => prompt("new passphrase: ", true).await,
        (None, None) => {
            Err(Trouble::new("no new secret was given").hint("use --new-passphrase-file FILE or --new-key-file FILE"))
        }
    }
}

/// What the options name, or else the environment.
async fn given(global: &Global) -> Result<Option<Secret>, Trouble> {
    if let Some(file) = &global.key_file {
        return read_key(file).await.map(Some);
    }
    if let Some(file) = &global.passphrase_file {
        return read_passphrase(file).await.map(Some);
    }
    if let Some(file) = std::env::var_os(KEY_FILE) {
        return read_key(&PathBuf::from(file)).await.map(Some);
    }
    match std::env::var(PASSPHRASE) {
        Ok(passphrase) => passphrase_of(passphrase, PASSPHRASE).map(Some),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Trouble::new(format!("{PASSPHRASE} can't be used")).caused_by(error)),
    }
}

async fn read_key(file: &Path) -> Result<Secret, Trouble> {
    let bytes = read(file).await?;
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| {
        Trouble::new(format!("{} is {} bytes long; a key has 32", file.display(), bytes.len()))
            .hint("make one with `head -c 32 /dev/urandom > FILE`")
    })?;
    Ok(Secret::key(*key))
}

async fn read_passphrase(file: &Path) -> Result<Secret, Trouble> {
    let bytes = read(file).await?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Trouble::new(format!("{} is not UTF-8", file.display())).caused_by(error))?;
    passphrase_of(text.lines().next().unwrap_or_default().to_owned(), &file.display().to_string())
}

fn passphrase_of(passphrase: String, source: &str) -> Result<Secret, Trouble> {
    if passphrase.is_empty() {
        return Err(Trouble::new(format!("the passphrase from {source} is empty")));
    }
    Ok(Secret::passphrase(passphrase))
}

/// A secret's file, erased from memory when it is dropped; says so if others than its owner may read it.
async fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let fail = |error| Trouble::new(format!("could not read {}", file.display())).caused_by(error);
    let mode = tokio::fs::metadata(file).await.map_err(fail)?.permissions().mode();
    if mode & READABLE_BY_OTHERS != 0 {
        let name = human::visible(&file.display().to_string());
        eprintln!("warning: others may read the secret in {name}; `chmod 600` it");
    }
    tokio::fs::read(file).await.map(Zeroizing::new).map_err(fail)
}

/// Asks on the terminal, without echo.
async fn prompt(question: &'static str, confirm: bool) -> Result<Secret, Trouble> {
    if !io::stdin().is_terminal() {
        return Err(Trouble::new("no passphrase or key was given")
            .hint(format!("use --passphrase-file FILE or --key-file FILE, or set {PASSPHRASE} or {KEY_FILE}")));
    }
    let asked = tokio::task::spawn_blocking(move || {
        let ask = |question: &str| rpassword::prompt_password(question).map(Zeroizing::new);
        let passphrase = ask(question)?;
        let again = if confirm { Some(ask("once more: ")?) } else { None };
        io::Result::Ok((passphrase, again))
    });
    let (mut passphrase, again) = asked
        .await
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| Trouble::new("could not ask for the passphrase").caused_by(error))?;
    if again.is_some_and(|again| again != passphrase) {
        return Err(Trouble::new("the two passphrases differ"));
    }
    passphrase_of(std::mem::take(&mut *passphrase), "the terminal")
}
