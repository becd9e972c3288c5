//! The subgraphs that summarise tensors inside the model.
//!
//! One subgraph serves a stack of G groups of equal sizes, so that their matrices share products and transfers. For
//! each group with kept rows `R` [n, d] in its tensors and a sketch of l directions, one run computes from the previous
//! basis and mean M of the N rows before, and from the rotation found on the host:
//!
//! ```text
//! Q = [Q_previous Z_previous] T          [d, l]    current directions, scaled
//! Y = R Q - 1 M^T Q                      [n, l]
//! M' = (N M + R^T 1) / (N + n)           [d]
//! Z = R^T Y - M' 1^T Y + keep Z_previous [d, l]    C Q, see pca::SketchStats; on top of the image so far if Q is the same
//! ```
//!
//! leaves `Q`, `Z` and `M'` for the next run and returns `Q^T Q`, `Y^T Y`, `Z^T Z`, and of `R` the sum of the rows and of
//! the squares: a few kilobytes. What the host makes of them is told at [`StreamingPca`](crate::pca::StreamingPca).
//! The rows themselves are read as they are: they are centred by way of `Y`, which is small.
//!
//! All matrices with l columns have one more, which is 0 in `Q` and 1 in `Y`: so the products with `Y` have the sums of
//! the rows of `R` and `Y`, and their number. The 1 comes with the rotation, of which one row meets zeros only.
//!
//! ONNX Runtime runs what the last node without readers needs, then what the one before it needs beyond that, and so on
//! (`GraphViewer`, a reverse depth-first search from the leaves). So nodes that nobody reads end the graph, the first
//! layer last: what is made of the rows of a layer is made before the next layer runs, and its activations do not stay.

mod constants;
mod graph;
mod nodes;
mod plan;
mod ports;

pub use graph::patch;
pub use plan::{Plan, Rows, columns, squares_of_nothing, triangle};
pub use ports::Ports;
