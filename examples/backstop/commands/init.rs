//! `init`.

use backstop::Location;

use crate::arguments::{Global, InitArguments};
use crate::commands::Done;
use crate::output::Output;
use crate::trouble::Trouble;
use crate::{connection, human, json};

pub(crate) async fn init(global: &Global, arguments: &InitArguments, output: &mut Output) -> Result<Done, Trouble> {
    let repository = connection::create(global, &arguments.label).await?;
    // Without credentials that may stand in it.
    let location = Location::from(connection::location(global)).to_string();
    let text = || {
        format!(
            "created repository {} at {}\nits fingerprint is {}\nkeep its passphrase or key safe: without one nothing can be restored",
            repository.id(),
            human::visible(&location),
            repository.fingerprint()
        )
    };
    output.summary(|| json::created(&repository, &location), text)?;
    Ok(Done::Complete)
}
