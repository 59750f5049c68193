//! Backs this crate's own sources up, restores them and compares: `cargo run --release --example quickstart`.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backstop::{BackupOptions, CreateOptions, Key, NoProgress, OpenOptions, Repository, RestoreOptions, Secret};

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "the times are for people")]
async fn main() -> Result<(), Box<dyn Error>> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = crate_folder.join("src");
    let place = crate_folder.join("target/quickstart");
    let (stored, restored) = (place.join("repository"), place.join("restored"));

    // Open the repository that an earlier run left, or create one.
    let secret = Secret::passphrase("only for this example");
    let repository = match Repository::open(stored.as_path(), &secret, OpenOptions::default()).await {
        Err(error) if error.is_not_found() => {
            Repository::create(stored.as_path(), &secret, CreateOptions::default()).await?
        }
        opened => opened?,
    };

    let start = Instant::now();
    let options = BackupOptions::default().with_series("sources").with_tag("why", "quick start");
    let report = repository.backup(std::slice::from_ref(&source), &options, Arc::new(NoProgress)).await?;
    let snapshot = report.snapshot.ok_or("a dry run makes no snapshot")?;
    let stats = report.stats;
    println!("backed up   {} as {snapshot} in {:.0?}", source.display(), start.elapsed());
    println!("            {} files of {} bytes, of which {} were read", stats.files, stats.bytes, stats.bytes_read);
    println!("stored      {} bytes for {} new bytes", stats.stored_bytes, stats.new_bytes);

    // Absolute paths are stored without their leading `/`.
    let path = Key::from_path(source.to_str().ok_or("the path is not UTF-8")?.trim_start_matches('/'))?;
    let start = Instant::now();
    let options = RestoreOptions::default();
    let report = repository.restore(&snapshot, Some(&path), &restored, &options, Arc::new(NoProgress)).await?;
    println!("restored    {} in {:.0?}", restored.display(), start.elapsed());
    println!(
        "            {} files, {} bytes written, {} found right",
        report.files, report.bytes_written, report.unchanged
    );

    let equal = compare(&source, &restored)?;
    println!("compared    {equal} files, all equal");
    println!("repository  {} bytes in all, in {}", repository.stats().await?.bytes(), stored.display());
    Ok(())
}

/// Compares every file below two folders; how many there are.
fn compare(one: &Path, other: &Path) -> Result<u64, Box<dyn Error>> {
    let mut equal = 0;
    for item in fs::read_dir(one)? {
        let (path, twin) = (item?.path(), other.to_owned());
        let twin = twin.join(path.file_name().ok_or("a file without a name")?);
        if path.is_dir() {
            equal += compare(&path, &twin)?;
        } else if fs::read(&path)? == fs::read(&twin)? {
            equal += 1;
        } else {
            return Err(format!("{} was restored differently", path.display()).into());
        }
    }
    Ok(equal)
}
