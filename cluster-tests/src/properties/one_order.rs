//! There is one total order that all listeners' sequences agree with.

use std::collections::HashMap;
use std::fmt;

use crate::traffic::{Heard, Label};

/// Messages that come before one another in a circle, each step with a listener who heard it so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// `(earlier, later, heard by)`; the last step leads back to the first one's `earlier`.
    pub steps: Vec<(Label, Label, String)>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no order fits all listeners")?;
        for (earlier, later, by) in &self.steps {
            write!(f, "; {by} heard {earlier} before {later}")?;
        }
        Ok(())
    }
}

/// Checks any listeners of one namespace, also such as heard only a part.
///
/// What a listener hears directly after a message is an edge; an order that fits all exists if
/// and only if the edges of all listeners together make no circle.
pub fn check(heard: &[Heard]) -> Result<(), Circle> {
    let mut graph = Graph::default();
    for heard in heard {
        for pair in heard.labels.windows(2) {
            graph.edge(&pair[0], &pair[1], &heard.by);
        }
    }
    graph.circle().map_or(Ok(()), Err)
}

#[derive(Default)]
struct Graph<'a> {
    numbers: HashMap<&'a Label, usize>,
    labels: Vec<&'a Label>,
    // For each message: what comes directly before it, and who heard it so.
    before: Vec<Vec<(usize, &'a str)>>,
    after: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn edge(&mut self, earlier: &'a Label, later: &'a Label, by: &'a str) {
        let (earlier, later) = (self.number(earlier), self.number(later));
        self.after[earlier].push(later);
        self.before[later].push((earlier, by));
    }

    fn number(&mut self, label: &'a Label) -> usize {
        *self.numbers.entry(label).or_insert_with(|| {
            self.labels.push(label);
            self.before.push(Vec::new());
            self.after.push(Vec::new());
            self.labels.len() - 1
        })
    }

    // Takes away what nothing comes before, until nothing is left, or only circles and what
    // follows them.
    fn circle(&self) -> Option<Circle> {
        let mut waiting: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut free: Vec<usize> = (0..waiting.len()).filter(|&one| waiting[one] == 0).collect();
        while let Some(one) = free.pop() {
            for &later in &self.after[one] {
                waiting[later] -= 1;
                if waiting[later] == 0 {
                    free.push(later);
                }
            }
        }
        let start = waiting.iter().position(|&count| count > 0)?;
        Some(self.walk_back(start, &waiting))
    }

    // Everything that is left has something left before it: walking back must come round.
    fn walk_back(&self, start: usize, waiting: &[usize]) -> Circle {
        let mut path = vec![start];
        let mut steps = Vec::new();
        loop {
            let here = path[path.len() - 1];
            let before = self.before[here].iter().find(|(earlier, _)| waiting[*earlier] > 0);
            let &(earlier, by) = before.expect("what is left waits for something that is left");
            let (from, to) = (self.labels[earlier].clone(), self.labels[here].clone());
            steps.push((from, to, by.to_owned()));
            if let Some(met) = path.iter().position(|&seen| seen == earlier) {
                let mut steps = steps.split_off(met);
                steps.reverse();
                return Circle { steps };
            }
            path.push(earlier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::examples::heard;

    #[test]
    fn parts_of_one_order_fit() {
        let all = heard("x", "a:0 b:0 a:1 b:1");
        let late = heard("y", "a:1 b:1");
        let filtered = heard("z", "a:0 a:1");
        assert_eq!(check(&[all, late, filtered, heard("nobody", "")]), Ok(()));
    }

    #[test]
    fn two_listeners_that_disagree_are_named() {
        let circle = check(&[heard("x", "a:0 b:0 c:0"), heard("y", "b:0 a:0 c:0")]).unwrap_err();
        assert_eq!(circle.steps.len(), 2);
        let text = circle.to_string();
        assert!(text.contains("x heard a:0 before b:0"), "{text}");
        assert!(text.contains("y heard b:0 before a:0"), "{text}");
    }

    #[test]
    fn a_circle_through_three_listeners_is_found_although_each_pair_agrees() {
        let heard = [heard("x", "a:0 b:0"), heard("y", "b:0 c:0"), heard("z", "c:0 a:0")];
        assert_eq!(check(&heard).unwrap_err().steps.len(), 3);
    }

    #[test]
    fn a_message_heard_twice_is_a_circle() {
        assert!(check(&[heard("x", "a:0 b:0 a:0")]).is_err());
    }
}
