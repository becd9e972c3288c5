//! The subgraphs that summarise tensors inside the model.
//!
//! One subgraph serves a stack of G groups of equal sizes, so that their matrices share products and transfers. For
//! each group with kept rows `R` [n, d] in its tensors and a sketch of l directions, one run computes from the previous
//! basis and mean M of the N rows before, and from the rotation found on the host:
//!
//! ```text
//! Q = [Q_previous Z_previous] T          [d, l]    directions, scaled
//! Y = R Q - 1 M^T Q                      [n, l]
//! M' = (N M + R^T 1) / (N + n)           [d]
//! Z = R^T Y - M' 1^T Y + keep Z_previous [d, l]    C Q, see pca::SketchStats; summed up while Q is the same
//! ```
//!
//! keeps `Q`, `Z` and `M'` for the next run, and returns a few kilobytes: `Q^T Q`, `Y^T Y`, `Z^T Z`, the sum of the
//! rows of `R` and the sum of their squares. [`StreamingPca`](crate::pca::StreamingPca) makes the next rotation of
//! them. On a GPU the rows themselves are not centred; `Y` is, which is small. On a CPU, `X = R - 1 M^T` takes the place
//! of `R`: `Y = X Q`, `Z = X^T Y - (M' - M) 1^T Y`, and sums are those of `X`.
//!
//! All matrices with l columns have one more, 0 in `Q` and 1 in `Y`, so that products with `Y` include sums over rows
//! and their number. The 1 comes from the row of the rotation that is multiplied by zeros only.
//!
//! ONNX Runtime runs what the last node without readers needs, then what the one before it still needs, and so on
//! (`GraphViewer`, a reverse depth-first search from the leaves). So the graph ends with nodes that nobody reads, those
//! of the first layer last: the rows of a layer are summarised before the next layer runs, and their memory is freed.

mod constants;
mod deflate;
mod equations;
mod graph;
mod nodes;
mod parts;
mod plan;
mod ports;

pub use graph::patch;
pub use plan::{Plan, Rows, columns, squares_of_nothing, triangle};
pub use ports::Ports;
