//! Panics of a library as errors.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether panics of this thread are caught, and not reported.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The result of a library, or its message. Some files make the libraries that read them panic.
///
/// The work must stay on this thread. The process's panic hook still sees all other panics.
pub(crate) fn caught<T, E: Display>(run: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                report(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(before);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(text.unwrap_or("the library that reads it failed").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_messages() {
        assert_eq!(caught(|| -> tokenizers::Result<()> { panic!("number {}", 5) }), Err("number 5".to_owned()));
        assert_eq!(caught(|| Ok::<_, String>(5)), Ok(5));
        assert_eq!(caught(|| -> tokenizers::Result<()> { Err("no".into()) }), Err("no".to_owned()));
        assert!(!QUIET.get());
    }
}
