//! Where the services for tests are.

/// The value of a variable that names a service; `None` when the tests that need one are left out on purpose.
///
/// # Panics
/// The variable is missing and nothing says that such tests are to be left out.
#[must_use]
pub fn service(variable: &str) -> Option<String> {
    if std::env::var("COPASS_TEST_SKIP_SERVICES").is_ok_and(|value| value == "1") {
        return None;
    }
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => Some(value),
        _ => panic!(
            "{variable} is not set: run scripts/test, or eval \"$(scripts/services start)\" first; \
             COPASS_TEST_SKIP_SERVICES=1 leaves out the tests that need a service"
        ),
    }
}
