//! `init`.

use crate::arguments::{Global, InitArguments};
use crate::commands::Done;
use crate::output::Output;
use crate::trouble::Trouble;
use crate::{connection, json};

pub(crate) async fn init(global: &Global, arguments: &InitArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::create(global, &arguments.label).await?;
    let location = connection::location(global);
    let text = || {
        format!(
            "created repository {} at {location}\nits fingerprint is {}\nkeep its passphrase or key safe: without one nothing can be restored",
            repository.id(),
            repository.fingerprint()
        )
    };
    output.summary(|| json::created(&repository, location), text)?;
    Ok(Done::Complete)
}
