//! Batches that are run without being counted.

use super::Sketch;
use super::marks::Mark;
use super::member::Member;
use super::stack::Stack;
use crate::calib::Batch;
use crate::capture::compare::Probed;
use crate::capture::error::Error;
use crate::capture::interface::PartCapture;
use crate::capture::matching::{Demands, Unlearnt};
use crate::capture::rows::{Choice, Layout, row_count};

impl Probed for Sketch {
    fn counts(&mut self, batch: &Batch) -> Result<Vec<Vec<usize>>, Error> {
        let choices: Vec<_> = self.stacks.iter().map(|stack| Choice::probe(stack.members[0].tensors.len())).collect();
        let returned = self.run(batch, &choices, false)?;
        let mut counts = vec![Vec::new(); self.places.len()];
        for (stack, returned) in self.stacks.iter().zip(returned) {
            let mut shapes = returned.shapes.iter();
            for member in &stack.members {
                for shape in shapes.by_ref().take(member.tensors.len()) {
                    counts[member.group].push(row_count(shape.as_i64()?));
                }
            }
        }
        Ok(counts)
    }

    fn sums(&mut self, batch: &Batch, layouts: &[Vec<Layout>]) -> Result<Vec<Vec<f64>>, Error> {
        let choices = self.choices(layouts, batch);
        let returned = self.run(batch, &choices, false)?;
        let mut sums = vec![Vec::new(); self.places.len()];
        for ((stack, returned), choice) in self.stacks.iter().zip(&returned).zip(&choices) {
            stack.members.iter().zip(stack.sums(returned, choice)?).for_each(|(member, sum)| sums[member.group] = sum);
        }
        Ok(sums)
    }
}

impl PartCapture for Sketch {
    fn demands(&self) -> Demands {
        self.matching.demands()
    }

    fn obey(&mut self, demands: Demands) {
        self.matching.obey(demands);
    }

    fn unlearnt(&self) -> Unlearnt {
        self.matching.unlearnt()
    }

    fn learn_order(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut matching = std::mem::take(&mut self.matching);
        matching.learn_order(self, batch)?;
        let alike = |stack: &Stack| {
            let layouts = |member: &Member| &matching.layouts[member.group];
            stack.members.iter().all(|member| layouts(member) == layouts(&stack.members[0]))
        };
        if !self.stacks.iter().all(alike) {
            matching.split_sequences();
        }
        self.matching = matching;
        Ok(())
    }

    fn learn_padding(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut matching = std::mem::take(&mut self.matching);
        matching.learn_padding(self, batch)?;
        self.matching = matching;
        Ok(())
    }

    fn mark(&mut self, number: usize, most: usize) -> Result<(), Error> {
        let stacks = self.stacks.iter().map(|stack| stack.mark()).collect::<Result<Vec<_>, _>>()?;
        let (batches, events, matching) = (self.batches, self.events, self.matching.clone());
        self.marks.push_back(Mark { number, batches, events, matching, stacks });
        while self.marks.len() > most {
            self.marks.pop_front();
        }
        Ok(())
    }

    fn return_to(&mut self, number: usize) -> Result<(), Error> {
        let found = self.marks.drain(..).find(|mark| mark.number == number);
        let Mark { batches, events, matching, stacks, .. } = found.ok_or(Error::State { what: "it is forgotten" })?;
        let session = self.session.as_ref().ok_or(Error::Unloaded)?;
        self.stacks.iter_mut().zip(stacks).try_for_each(|(stack, mark)| stack.return_to(mark, session))?;
        (self.batches, self.events, self.matching) = (batches, events, matching);
        self.host_is_done = false;
        Ok(())
    }

    fn forward(&mut self, batch: &Batch) -> Result<(), Error> {
        self.counts(batch).map(drop)
    }
}
