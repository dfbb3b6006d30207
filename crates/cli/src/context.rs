//! What every command is given: the resolved settings, the output, and clients made from both.

use copass_client::{Client, Credential};

use crate::{
    failure::Failure,
    output::Output,
    session::{self, Origin},
    settings::Settings,
};

/// The surroundings of a command.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(settings: Settings, output: Output) -> Self {
        Self { settings, output }
    }

    /// A client that speaks for the person.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(self.client_and_origin().await?.0)
    }

    /// The same, and where the credential came from.
    pub(crate) async fn client_and_origin(&self) -> Result<(Client, Origin), Failure> {
        match session::credential(&self.settings).await? {
            Some((credential, origin)) => Ok((self.client_with(Some(&credential))?, origin)),
            None => Err(Failure::not_logged_in("you are not logged in")),
        }
    }

    /// A client with this credential, or with none.
    pub(crate) fn client_with(&self, credential: Option<&Credential>) -> Result<Client, Failure> {
        Ok(Client::new(&self.settings.api_url, credential)?)
    }

    /// A client and the sandbox to work in. The sandbox comes first: it needs no network.
    pub(crate) async fn in_sandbox(&self) -> Result<(Client, String), Failure> {
        let sandbox_id = self.settings.required_sandbox()?;
        Ok((self.client().await?, sandbox_id))
    }
}
