//! A server's changes, each committed before it is answered: `cargo run --example change_feed`.

use std::error::Error;
use std::path::Path;

use backstop::{
    Batch, CreateOptions, Feed, FeedOptions, Key, Metadata, OpenOptions, Receipt, Repository, Result, Secret, Selector,
};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/change_feed")).await
}

pub(crate) async fn run(stored: &Path) -> Result<(), Box<dyn Error>> {
    // Open the repository that an earlier run left, or create one.
    let secret = Secret::passphrase("only for this example");
    let repository = match Repository::open(stored, &secret, OpenOptions::default()).await {
        Err(error) if error.is_not_found() => Repository::create(stored, &secret, CreateOptions::default()).await?,
        opened => opened?,
    };

    // One feed for the whole server. It says up to where the database is backed up: replay what came after.
    let feed = repository.feed("accounts", FeedOptions::default()).await?;
    let position = feed.snapshot().and_then(|last| last.position).unwrap_or_default();
    println!("going on from  {:?}", String::from_utf8_lossy(&position));

    // Each client's request is a task of its own, and is answered once its change is committed.
    let requests = (0..200).map(|user| tokio::spawn(save_card(feed.clone(), user)));
    for request in requests.collect::<Vec<_>>() {
        request.await??;
    }

    // What belongs together goes into one batch, with the position of the database that includes it.
    let (gone, note) = (Key::from_path("user-7")?, Key::from_path("admin/notes/1.txt")?);
    let mut batch = Batch::new();
    batch.remove_prefix(&gone).put(&note, "user 7 has left", &Metadata::default());
    batch.at_position("lsn 0/16B3748");
    let receipt = feed.apply(batch).await?;

    // Keep number and hash outside of the store: they show whether it hides newer records.
    println!("committed      #{} {}", receipt.number, receipt.hash);
    let selector = Selector::Number { series: "accounts".to_owned(), number: receipt.number };
    let snapshot = repository.find(&selector).await?;
    let mut content = String::new();
    repository.read_file(&snapshot, &note).await?.read_to_string(&mut content).await?;
    println!("read back      {content:?}, among {} entries", snapshot.entries);

    feed.close().await?;
    Ok(())
}

async fn save_card(feed: Feed, user: u32) -> Result<Receipt> {
    let path = Key::from_path(format!("user-{user}/contacts/1.vcf"))?;
    let card = format!("BEGIN:VCARD\r\nFN:User {user}\r\nEND:VCARD\r\n");
    feed.put(&path, card, &Metadata::default().with_content_type("text/vcard")).await
}
