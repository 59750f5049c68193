//! `cat`.

use tokio::io::{AsyncWriteExt, BufReader};

use crate::arguments::{CatArguments, Global};
use crate::commands::Done;
use crate::connection;
use crate::trouble::Trouble;

/// Bytes taken from the repository, and handed to standard output, at a time.
const BUFFER: usize = 1 << 20;

pub(crate) async fn cat(global: &Global, arguments: &CatArguments) -> Result<Done, Trouble> {
    let repository = connection::open(global).await?;
    let snapshot = repository.find(&arguments.target.snapshot).await?;
    let Some(path) = &arguments.target.path else { return Err(Trouble::new("no file was named")) };
    let file = repository.read_file(&snapshot, path).await.map_err(|error| {
        let missing = error.is_not_found();
        let trouble = Trouble::from(error);
        if missing { trouble.hint(format!("`backstop ls {snapshot}` lists all that there is")) } else { trouble }
    })?;
    let mut stdout = tokio::io::stdout();
    tokio::io::copy_buf(&mut BufReader::with_capacity(BUFFER, file), &mut stdout).await.map_err(told_apart)?;
    stdout.flush().await?;
    Ok(Done::Complete)
}

/// An error of the repository travels through the copy inside one of input and output.
fn told_apart(error: std::io::Error) -> Trouble {
    match error.downcast::<backstop::Error>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}
