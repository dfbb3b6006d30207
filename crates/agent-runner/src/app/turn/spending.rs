//! What model answers use, counted for every try: whoever drops an answer, or asks again, pays for it all the same.

use copass_llm::{Cost, Usage};

use super::engine::{Turn, tokens_in};
use crate::store::signed;

/// Said where an answer did not come to its end.
const CUT: &str = "an answer was cut before its provider told all that it used; its tokens and cost are counted as far as \
                   they were told";
/// Said where nobody knows what an answer used.
const LOST: &str =
    "a worker was lost in the middle of an answer; what that one used is not known, and neither is the cost";

/// What the answer that is being read used, as far as its provider told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OpenAnswer {
    usage: Usage,
    /// The answer came to its end.
    is_whole: bool,
}

impl OpenAnswer {
    pub(super) fn partial(usage: Usage) -> Self {
        Self { usage, is_whole: false }
    }

    pub(super) fn whole(usage: Usage) -> Self {
        Self { usage, is_whole: true }
    }
}

impl Turn<'_> {
    /// A model step begins.
    pub(super) fn begin_counting(&mut self) {
        (self.step_usage, self.step_cost) = (Usage::default(), Some(Cost::default()));
    }

    /// Adds to the sums; a cost that is not known makes them unknown.
    pub(super) fn count(&mut self, usage: Usage, is_cost_known: bool) {
        let cost = self.mind.cost(self.worker, &usage).filter(|_| is_cost_known);
        self.usage += usage;
        self.step_usage += usage;
        for sum in [&mut self.cost, &mut self.step_cost] {
            *sum = sum.zip(cost).map(|(sum, cost)| sum + cost);
        }
    }

    /// Counts the answer that was being read, however its reading ended: what the provider told of it is paid for.
    pub(super) fn count_open_answer(&mut self, used_nothing: bool) {
        let Some(OpenAnswer { usage, is_whole }) = self.open_answer.take() else {
            return;
        };
        if usage.is_implausible() {
            self.run.warnings.push(format!(
                "the provider told more tokens than an answer can have; they are counted as {}",
                Usage::MAX_COUNT
            ));
        }
        // What nobody told is not nothing.
        let is_free = self.mind.is_free(self.worker);
        let is_known = used_nothing || !usage.is_untold() || is_free;
        if !is_whole && !usage.is_untold() && !is_free {
            self.warn_once(CUT);
        }
        self.count(usage, is_known);
        self.write_spent();
    }

    /// Counts an answer that a worker took with it: whatever it used, nobody told.
    pub(super) fn count_lost_answer(&mut self) {
        if !self.mind.is_free(self.worker) {
            self.warn_once(LOST);
            self.count(Usage::default(), false);
        }
    }

    fn warn_once(&mut self, warning: &str) {
        if !self.run.warnings.iter().any(|known| known == warning) {
            self.run.warnings.push(warning.to_owned());
        }
    }

    /// Puts what the present model step used into the journal.
    pub(super) fn write_spent(&mut self) {
        let (usage, cost) = (self.step_usage, self.step_cost);
        self.journal.amend(self.model_step, |step| {
            step.usage = Some(usage);
            step.cost_microcents = cost.map(|cost| signed(cost.total));
            step.tokens_in = Some(signed(tokens_in(&usage)));
            step.tokens_out = Some(signed(usage.output_tokens));
        });
    }
}
