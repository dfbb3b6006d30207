//! The first person of a server, for `copass dev`.

use copass_errors::{Error, Result};
use copass_runtime::{CallContext, clock};
use copass_types::{ActorKind, Principal, UserId};

use super::{App, login, profiles};
use crate::{Bootstrap, SERVICE, store};

impl App {
    /// The person of the address with a profile, and a new key for them.
    pub(crate) async fn bootstrap_owner(&self, email: &str, display_name: &str) -> Result<Bootstrap> {
        let email = login::normalise(email)?;
        let mut tx = self.db.begin().await?;
        store::users::insert_if_absent(&mut tx, &UserId::generate(), &email, clock::now()).await?;
        let user = profiles::find_user(store::users::find_by_email(&mut tx, &email).await?)?;
        tx.commit().await?;
        let user_id = profiles::user_id_of(&user)?;
        let principal = Principal {
            kind: ActorKind::Session,
            user_id: Some(user_id.clone()),
            ..Principal::service(SERVICE, "bootstrap")
        };
        let context = CallContext::new(principal);
        let profile = self.ensure_profile(&context, Some(display_name), None, true).await?;
        let sandbox_id = profile
            .sandbox_id
            .ok_or_else(|| Error::internal("a person without a primary sandbox after making one"))?;
        // Last, so that nothing can fail after a key was made whose secret nobody would see.
        let key = self.create_api_key(&context, "copass dev", None, None).await?;
        Ok(Bootstrap {
            user_id: user_id.to_string(),
            sandbox_id,
            api_key: key.secret,
        })
    }
}
