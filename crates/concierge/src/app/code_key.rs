//! The key under which one-time codes are hashed: a leaked table of codes is useless without it.

use copass_runtime::MasterKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Hashes one-time codes.
pub(crate) struct CodeKey(Hmac<Sha256>);

impl CodeKey {
    pub(crate) fn new(master_key: &MasterKey) -> Self {
        let key = master_key.derive("login code");
        // HMAC pads keys shorter than its block with zeros; done here, because the constructor takes a whole block.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key.as_slice());
        Self(Hmac::new(&block.into()))
    }

    pub(crate) fn hash(&self, email: &str, code: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(email.as_bytes());
        mac.update(b"\0");
        mac.update(code.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}
