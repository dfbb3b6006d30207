//! Money is whole units of 1e-6 USD on the wire (`rest.md` 4) and dollars for a person.

/// An amount, exactly: at least two decimals, and as many as it has.
pub(crate) fn dollars(microcents: u64) -> String {
    let decimals = format!("{:06}", microcents % 1_000_000);
    let kept = decimals.trim_end_matches('0').len().max(2);
    let decimals = decimals.get(..kept).unwrap_or(&decimals);
    format!("${}.{decimals}", microcents / 1_000_000)
}

/// An amount that may not be known, which is not the same as nothing.
pub(crate) fn dollars_or_unknown(microcents: Option<u64>) -> String {
    microcents.map_or_else(|| "unknown".to_owned(), dollars)
}

/// The sum over runs, some of which may have no price.
pub(crate) fn dollars_of_runs(microcents: u64, runs: u64, without_price: u64) -> String {
    if without_price > 0 && without_price >= runs && microcents == 0 {
        return "unknown".to_owned();
    }
    beside_unknown(dollars(microcents), without_price)
}

/// A sum with the number of runs that it leaves out.
pub(crate) fn beside_unknown(known: String, without_price: u64) -> String {
    match without_price {
        0 => known,
        1 => format!("{known} + 1 run of unknown cost"),
        unknown => format!("{known} + {unknown} runs of unknown cost"),
    }
}

#[cfg(test)]
mod tests {
    use super::{dollars, dollars_of_runs, dollars_or_unknown};

    #[test]
    fn nothing_is_rounded_away() {
        let shown: Vec<_> = [0, 1, 1_250, 10_000, 1_250_000, 12_000_000]
            .into_iter()
            .map(dollars)
            .collect();
        assert_eq!(shown, ["$0.00", "$0.000001", "$0.00125", "$0.01", "$1.25", "$12.00"]);
    }

    #[test]
    fn unknown_is_never_zero() {
        assert_eq!(dollars_or_unknown(None), "unknown");
        assert_eq!(dollars_of_runs(0, 3, 3), "unknown");
        assert_eq!(dollars_of_runs(0, 3, 0), "$0.00");
        assert_eq!(dollars_of_runs(5, 3, 1), "$0.000005 + 1 run of unknown cost");
    }
}
