//! What can be written on the command line.

mod retention;

use std::path::PathBuf;

use backstop::{Fingerprint, Key, Moment};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use retention::{ForgetArguments, GcArguments, UndeleteArguments};

use crate::selector::{self, Target};

/// Deduplicating, encrypted backups on local disks and object stores.
///
/// A SNAPSHOT is `latest` (of all series), `SERIES@latest`, `SERIES#NUMBER`, or `[SERIES@]TIME`: the latest at that
/// time or before it. A TIME is a date (`2026-11-22`), a date and time in the system's time zone
/// (`2026-11-22T10:00`), or one with its own (`2026-11-22T10:00:00Z`); it means the end of the day, minute or second
/// that it names.
///
/// Exit status: 0 done, 1 failed or damage found, 2 wrong usage, 3 done but partial, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, max_term_width = 100, arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the repository is: a path, file:///…, s3://…, gs://…, az://…
    #[arg(short, long, global = true, value_name = "URL", env = "BACKSTOP_REPOSITORY", hide_env_values = true)]
    pub(crate) repository: Option<String>,

    /// Takes the passphrase from the first line of a file [env: BACKSTOP_PASSPHRASE, the passphrase itself]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "key_file")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// Takes the key from a file of 32 random bytes [env: BACKSTOP_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,

    /// Opens no repository but the one with this fingerprint, which `init` and `key list` show
    #[arg(long, global = true, value_name = "FINGERPRINT", env = "BACKSTOP_FINGERPRINT")]
    pub(crate) fingerprint: Option<Fingerprint>,

    /// Prints one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Prints results and errors alone, no progress and no summaries
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Says more: details in summaries, and what the library logs
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    /// Accepts a store without conditional puts; you see to it that one writer runs at a time
    #[arg(long, global = true)]
    pub(crate) single_writer: bool,

    /// Where parts of the index are kept [default: $XDG_CACHE_HOME/backstop or ~/.cache/backstop]
    #[arg(long, global = true, value_name = "FOLDER", conflicts_with = "no_cache")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Keeps nothing on this machine
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates a repository
    Init(InitArguments),
    /// Backs up files and folders, or standard input, as the next snapshot of a series
    Backup(BackupArguments),
    /// Lists snapshots, oldest first within a series
    Snapshots(SnapshotsArguments),
    /// Lists what a snapshot holds at and below a path
    Ls(LsArguments),
    /// Writes a file of a snapshot to standard output
    Cat(CatArguments),
    /// Lists what differs between two snapshots
    Diff(DiffArguments),
    /// Lists what the snapshots of a series changed at and below a path, newest first
    History(HistoryArguments),
    /// Restores a snapshot, or a part of it
    Restore(RestoreArguments),
    /// Verifies the repository
    Check(CheckArguments),
    /// Puts right what is damaged or missing, from what is left or from another copy
    Repair(RepairArguments),
    /// Manages the secrets that open the repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// Tests what the present credentials allow on the store; needs no passphrase or key
    Probe(ProbeArguments),
    /// Shows what the repository takes up
    Stats,
    /// Merges small packs and index segments, such as a feed makes
    Merge(MergeArguments),
    /// Forgets snapshots by rules or by name; `gc` deletes their data later
    Forget(ForgetArguments),
    /// Brings a forgotten snapshot back under a new number
    Undelete(UndeleteArguments),
    /// Deletes what no snapshot needs any more
    Gc(GcArguments),
}

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// Only tell what there is to merge
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArguments {
    /// Ends with status 1 if the credentials allow more or less than this
    #[arg(long, value_name = "ACCESS", value_enum)]
    pub(crate) expect: Option<Expected>,
}

/// What a client of the store should be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expected {
    /// List, create and read; neither overwrite nor delete
    AppendOnly,
    /// List, create, read and delete
    Administrator,
    /// List and read
    ReadOnly,
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// What the first key is called; readable by anyone who can read the store
    #[arg(long, default_value = "")]
    pub(crate) label: String,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Files and folders
    #[arg(required_unless_present = "stdin", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// The series that the snapshot continues
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) series: String,

    /// Keeps a label in the snapshot; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    pub(crate) tags: Vec<(String, String)>,

    /// Leaves out what matches, by gitignore's rules relative to each PATH; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,

    /// Leaves out what matches one of the patterns in a file, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,

    /// Doesn't enter other file systems
    #[arg(long)]
    pub(crate) one_file_system: bool,

    /// Goes through everything and stores nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Backs up standard input as a file of this name
    #[arg(long, value_name = "NAME", conflicts_with = "paths", value_parser = OsStringValueParser::new().try_map(selector::parse_path))]
    pub(crate) stdin: Option<Key>,

    /// The machine's name that the snapshot keeps [default: this machine's]
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,

    /// zstd level, -7 to 19
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    pub(crate) compression_level: Option<i32>,

    /// Reads every file, unchanged or not
    #[arg(long)]
    pub(crate) read_all: bool,

    /// Reads files that look unchanged, too, if their stored content is lost
    #[arg(long)]
    pub(crate) heal: bool,

    /// Threads that read files
    #[arg(long, value_name = "NUMBER")]
    pub(crate) readers: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct SnapshotsArguments {
    /// Those of one series
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Option<String>,

    /// Lists those that were forgotten and may still be undeleted, and until when they certainly can
    #[arg(long)]
    pub(crate) forgotten: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LsArguments {
    /// The snapshot and, after a colon, the path
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = OsStringValueParser::new().try_map(Target::parse))]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct CatArguments {
    /// The snapshot and the file's path
    #[arg(value_name = "SNAPSHOT:PATH", value_parser = OsStringValueParser::new().try_map(Target::parse_file))]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The older snapshot
    #[arg(value_name = "SNAPSHOT", value_parser = OsStringValueParser::new().try_map(Target::parse_snapshot))]
    pub(crate) old: Target,
    /// The newer snapshot
    #[arg(value_name = "SNAPSHOT", value_parser = OsStringValueParser::new().try_map(Target::parse_snapshot))]
    pub(crate) new: Target,
    /// Only what differs at and below this path
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(selector::parse_path))]
    pub(crate) path: Option<Key>,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// The series
    #[arg(value_name = "SERIES")]
    pub(crate) series: String,
    /// The path, in the snapshots
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(selector::parse_path))]
    pub(crate) path: Key,

    /// Shows so many snapshots that changed it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,

    /// The oldest snapshot that is looked at: its number, or the first since a time
    #[arg(long, value_name = "NUMBER|TIME", value_parser = selector::parse_from)]
    pub(crate) from: Option<Moment>,

    /// The newest snapshot that is looked at: its number, or the last until a time
    #[arg(long, value_name = "NUMBER|TIME", value_parser = selector::parse_until)]
    pub(crate) until: Option<Moment>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The snapshot and, after a colon, the path whose children (or the file that) are restored
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = OsStringValueParser::new().try_map(Target::parse))]
    pub(crate) target: Target,

    /// The folder that they go into; it is made if it doesn't exist
    #[arg(value_name = "DEST")]
    pub(crate) destination: PathBuf,

    /// Removes what the snapshot doesn't have
    #[arg(long)]
    pub(crate) delete: bool,

    /// Says what would be done and changes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Leaves what is restored to whoever restores, instead of giving it its owners and groups
    #[arg(long)]
    pub(crate) no_owners: bool,

    /// Leaves out fifos, sockets and device nodes
    #[arg(long)]
    pub(crate) no_special: bool,

    /// Leaves out set-user-id, set-group-id and capabilities of files
    #[arg(long)]
    pub(crate) no_set_id: bool,

    /// Leaves out extended attributes, but for access control lists
    #[arg(long)]
    pub(crate) no_xattrs: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Also reads and verifies stored data, all of it or a random share
    #[arg(
        long,
        value_name = "PERCENT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100",
        value_parser = parse_percent
    )]
    pub(crate) read_data: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    /// Only tell what is wrong and what would be done
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,

    /// Takes what is missing or damaged from another copy of the repository, which opens with the same secret
    #[arg(long, value_name = "URL")]
    pub(crate) other: Option<String>,

    /// Gives up what can't be restored: snapshots are rewritten without it
    #[arg(long)]
    pub(crate) accept_loss: bool,

    /// Deletes registrations that can't be read; only while no writer runs
    #[arg(long)]
    pub(crate) remove_damaged_writers: bool,

    /// Deletes what can't be read of series whose names nothing tells
    #[arg(long)]
    pub(crate) remove_nameless: bool,

    /// Tells the name of a series that nothing else tells any more; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Lists the keys; not the secrets themselves
    List,
    /// Lets another passphrase or key open the repository
    Add(KeyAddArguments),
    /// Takes a key away
    Remove(KeyRemoveArguments),
    /// Seals what is written from now on so that keys which were removed can't read it
    Rotate,
}

#[derive(Debug, Args)]
pub(crate) struct KeyAddArguments {
    /// Takes the new passphrase from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
    pub(crate) new_passphrase_file: Option<PathBuf>,

    /// Takes the new key from a file of 32 random bytes
    #[arg(long, value_name = "FILE")]
    pub(crate) new_key_file: Option<PathBuf>,

    /// What the key is called; readable by anyone who can read the store
    #[arg(long, default_value = "")]
    pub(crate) label: String,

    /// Lets it back up and restore, and neither forget nor delete anything
    #[arg(long)]
    pub(crate) append_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct KeyRemoveArguments {
    /// The key's id as `key list` shows it, or its beginning
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("it must be above 0 and at most 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn shares_and_tags_are_read() {
        assert_eq!(parse_percent("2.5"), Ok(2.5));
        assert_eq!(parse_percent("100%"), Ok(100.0));
        for wrong in ["0", "-1", "101", "NaN", "x", ""] {
            assert!(parse_percent(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_tag("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_tag("a").is_err() && parse_tag("=b").is_err());
    }

    #[test]
    fn a_share_is_given_with_an_equals_sign_or_is_all() {
        let read_data = |line: &[&str]| match Arguments::try_parse_from(line).unwrap().command {
            Command::Check(check) => check.read_data,
            _ => panic!("another command"),
        };
        assert_eq!(read_data(&["backstop", "check"]), None);
        assert_eq!(read_data(&["backstop", "check", "--read-data"]), Some(100.0));
        assert_eq!(read_data(&["backstop", "check", "--read-data=5%"]), Some(5.0));
        assert!(Arguments::try_parse_from(["backstop", "check", "--read-data", "5"]).is_err());
    }
}
