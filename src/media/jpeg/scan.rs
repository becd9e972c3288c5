//! One scan: coefficients of one component or of several in turn. Source: T.81, B.2.3, F.2 and G.2.

use super::super::error::BadFile;
use super::bits::Bits;
use super::block::{self, Part};
use super::defect::broken;
use super::frame::{Frame, SIDE};
use super::huffman::Huffman;

/// What a scan has.
pub(super) struct Scan {
    pub(super) parts: Vec<OfComponent>,
    part: Part,
}

/// A component of a scan.
pub(super) struct OfComponent {
    /// Its index in the frame.
    pub(super) component: usize,
    /// Numbers of its tables of the first and of the other coefficients.
    tables: [usize; 2],
}

/// What is known from block to block.
#[derive(Default)]
struct State {
    /// The first coefficient of the block before, for each component of the scan.
    before: [i32; 4],
    /// Blocks that have no more coefficients.
    blocks: u32,
}

impl Scan {
    /// The scan that a header describes.
    ///
    /// # Errors
    /// When it is broken.
    pub(super) fn read(header: &[u8], frame: &Frame) -> Result<Self, BadFile> {
        Self::parsed(header, frame).ok_or_else(|| broken("the header of a scan is broken"))
    }

    fn parsed(header: &[u8], frame: &Frame) -> Option<Self> {
        let (count, rest) = header.split_first()?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(*count))?;
        let mut all: Vec<OfComponent> = Vec::new();
        for part in parts.as_chunks::<2>().0 {
            let component = frame.components.iter().position(|component| component.id == part[0])?;
            let tables = [part[1] >> 4, part[1] & 15].map(usize::from);
            if tables.iter().any(|table| *table > 3) || all.iter().any(|other| other.component == component) {
                return None;
            }
            all.push(OfComponent { component, tables });
        }
        let &[first, last, bits] = rest else { return None };
        let part = match frame.progressive {
            true => {
                Part { first: first.into(), last: last.into(), before: (bits >> 4).into(), low: (bits & 15).into() }
            }
            false => Part { first: 0, last: 63, before: 0, low: 0 },
        };
        let sound = match frame.progressive {
            true if part.first == 0 => part.last == 0,
            true => part.first <= part.last && part.last < 64 && all.len() == 1,
            false => true,
        };
        (sound && part.low < 14 && !all.is_empty()).then_some(Self { parts: all, part })
    }

    /// Reads the coefficients of the scan, and returns its bytes.
    ///
    /// # Errors
    /// When they are broken, or end too early.
    pub(super) fn decode(
        &self,
        frame: &mut Frame,
        tables: &[[Option<Huffman>; 4]; 2],
        restart: usize,
        data: &[u8],
    ) -> Result<usize, BadFile> {
        let wrong = || broken("its data are broken, or end too early");
        let (mut bits, mut state) = (Bits::new(data), State::default());
        let (wide, high) = self.units(frame);
        for unit in 0..wide * high {
            if restart > 0 && unit > 0 && unit % restart == 0 {
                bits.restart().ok_or_else(wrong)?;
                state = State::default();
            }
            let at = (unit % wide, unit / wide);
            self.unit(frame, tables, at, &mut bits, &mut state).ok_or_else(wrong)?;
        }
        Ok(bits.end())
    }

    /// Units across and down: a block of the only component, or blocks of all.
    fn units(&self, frame: &Frame) -> (usize, usize) {
        match &self.parts[..] {
            [alone] => {
                let component = &frame.components[alone.component];
                (component.width.div_ceil(SIDE), component.height.div_ceil(SIDE))
            }
            _ => frame.units(),
        }
    }

    fn unit(
        &self,
        frame: &mut Frame,
        tables: &[[Option<Huffman>; 4]; 2],
        at: (usize, usize),
        bits: &mut Bits<'_>,
        state: &mut State,
    ) -> Option<()> {
        let alone = self.parts.len() == 1;
        for (number, part) in self.parts.iter().enumerate() {
            let component = &mut frame.components[part.component];
            let (across, down) = if alone { (1, 1) } else { (component.across, component.down) };
            for row in 0..down {
                for column in 0..across {
                    let place = (at.1 * down + row) * component.stride + at.0 * across + column;
                    let block = component.blocks.get_mut(place)?;
                    let table = |kind: usize| tables[kind][part.tables[kind]].as_ref();
                    let Part { first, before, low, .. } = self.part;
                    if first == 0 && before == 0 {
                        block[0] = (block::first(bits, table(0)?, &mut state.before[number])? << low) as i16;
                    } else if first == 0 {
                        block[0] |= (bits.take(1)? << low) as i16;
                    }
                    match (frame.progressive, first, before) {
                        (false, ..) => block::others(bits, table(1)?, block)?,
                        (true, 0, _) => {}
                        (true, _, 0) => block::begun(bits, table(1)?, self.part, block, &mut state.blocks)?,
                        (true, ..) => block::refined(bits, table(1)?, self.part, block, &mut state.blocks)?,
                    }
                }
            }
        }
        Some(())
    }
}
