//! Batches that are run without being counted.

use super::Sketch;
use crate::calib::Batch;
use crate::capture::compare::Probed;
use crate::capture::error::Error;
use crate::capture::interface::PartCapture;
use crate::capture::matching::Demands;
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

    fn forward(&mut self, batch: &Batch) -> Result<(), Error> {
        self.counts(batch).map(drop)
    }
}
