//! Async work in a destructor.

use std::future::Future;

/// Runs the future to its end on a thread of its own, because a destructor may stand inside a runtime and must not wait
/// there. A failure to clean up fails no test: what is left behind is found by age.
pub(crate) fn run_to_end<F: Future<Output = ()> + Send + 'static>(work: F) {
    let thread = std::thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            runtime.block_on(work);
        }
    });
    let _ = thread.join();
}
