//! Login codes from the log, as the person who runs `copass dev` reads them. A subscriber belongs to the whole process,
//! so codes are kept by address, and no two tests use the same one.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, Once, PoisonError},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

static LOGGED: Mutex<Option<HashMap<String, Vec<String>>>> = Mutex::new(None);
static INSTALL: Once = Once::new();

struct Codes;

#[derive(Default)]
struct Line {
    email: Option<String>,
    code: Option<String>,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "email" => self.email = Some(value.to_owned()),
            "code" => self.code = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Codes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("copass_concierge::app::mail")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let (Some(email), Some(code)) = (line.email, line.code) {
            let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
            logged.get_or_insert_default().entry(email).or_default().push(code);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Begins to read the log.
pub(crate) fn watch() {
    INSTALL.call_once(|| tracing::subscriber::set_global_default(Codes).unwrap());
}

/// Codes that were logged for the address, oldest first.
pub(crate) fn of(email: &str) -> Vec<String> {
    let logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    logged
        .as_ref()
        .and_then(|logged| logged.get(email).cloned())
        .unwrap_or_default()
}
