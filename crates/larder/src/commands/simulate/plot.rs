//! The pictures of an experiment: box plots and bars, side by side, as SVG or PNG.
//!
//! kuva draws them, with a rasteriser and fonts of its own, so a picture looks the same on a machine
//! that has none. Nothing else in this program knows kuva.

use std::ops::Range;
use std::sync::Arc;

use kuva::backend::raster::RasterBackend;
use kuva::backend::svg::SvgBackend;
use kuva::plot::{BarPlot, BoxPlot};
use kuva::prelude::ReferenceLine;
use kuva::render::figure::Figure;
use kuva::render::layout::{Layout, TickFormat};
use kuva::render::plots::Plot;
use kuva::render::render::Scene;

/// A title over panels from left to right. All figures are in percent.
pub(super) struct Picture {
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    /// What the vertical axis shows; what lies outside is cut off.
    pub(super) range: Range<f64>,
    pub(super) tick_step: f64,
    /// A dashed line at this height, and what it means.
    pub(super) mark: Option<(f64, String)>,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// A box from the lower to the upper quartile of each group, a line at the median, whiskers to
    /// the furthest value within 1.5 boxes (Tukey), and every value as a dot.
    Boxes(Vec<(String, Vec<f64>)>),
    /// Single bars, by name.
    Bars(Vec<(String, f64)>),
    /// Bars in groups, and the name of the bars that stand at each place of a group.
    Groups { names: Vec<String>, groups: Vec<(String, Vec<f64>)> },
}

impl Picture {
    pub(super) fn svg(&self) -> String {
        SvgBackend.render_scene(&self.scene())
    }

    pub(super) fn png(&self) -> Result<Vec<u8>, String> {
        RasterBackend::new().with_scale(PNG_SCALE).render_scene(&self.scene())
    }

    fn scene(&self) -> Scene {
        let plots: Vec<Vec<Plot>> = self.panels.iter().map(|panel| vec![panel.plot()]).collect();
        let layouts = self.panels.iter().zip(&plots).map(|(panel, plots)| panel.layout(plots));
        let layouts = layouts.collect();
        Figure::new(1, self.panels.len())
            .with_title(self.title.as_str())
            .with_title_size(20)
            .with_cell_size(PANEL_WIDTH, PANEL_HEIGHT)
            .with_plots(plots)
            .with_layouts(layouts)
            .render()
    }
}

impl Panel {
    fn plot(&self) -> Plot {
        match &self.content {
            Content::Boxes(boxes) => {
                let values = boxes.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
                let empty = BoxPlot::new().with_color(BOX).with_width(0.7);
                let plot = boxes.iter().fold(empty, |plot, (name, values)| {
                    plot.with_group(name.as_str(), values.iter().copied())
                });
                if values > DOTS_MAX {
                    return Plot::Box(plot);
                }
                Plot::Box(plot.with_strip(0.2).with_overlay_color(DOT).with_overlay_size(1.2))
            }
            Content::Bars(bars) => {
                Plot::Bar(bars.iter().zip(COLORS.iter().cycle()).fold(
                    BarPlot::new(),
                    |plot, ((name, value), color)| {
                        plot.with_colored_bar(name.as_str(), *value, *color)
                    },
                ))
            }
            Content::Groups { names, groups } => {
                let plot = groups.iter().fold(BarPlot::new(), |plot, (name, values)| {
                    let colored = values.iter().copied().zip(COLORS.iter().copied().cycle());
                    plot.with_group(name.as_str(), colored.collect::<Vec<_>>())
                });
                Plot::Bar(plot.with_legend(names.iter().map(String::as_str).collect()))
            }
        }
    }

    fn layout(&self, plots: &[Plot]) -> Layout {
        let decimals = usize::from(self.tick_step < 1.0);
        let percent = move |value: f64| format!("{value:.decimals$} %");
        let layout = Layout::auto_from_plots(plots)
            .with_title(self.title.as_str())
            .with_title_size(16)
            .with_x_label(self.x_label.as_str())
            .with_y_label(self.y_label.as_str())
            .with_label_size(14)
            .with_tick_size(12)
            .with_y_axis_min(self.range.start)
            .with_y_axis_max(self.range.end)
            .with_y_tick_step(self.tick_step)
            .with_y_tick_format(TickFormat::Custom(Arc::new(percent)));
        match &self.mark {
            // Its meaning stands under the title: beside the line it would cover boxes.
            Some((height, meaning)) => layout
                .with_subtitle(format!("dashed: {meaning}"))
                .with_subtitle_size(13)
                .with_reference_line(ReferenceLine::horizontal(*height).with_color(MARK)),
            None => layout,
        }
    }
}

/// Wide enough for nine boxes and a legible axis.
const PANEL_WIDTH: f64 = 520.0;
const PANEL_HEIGHT: f64 = 430.0;
/// Twice the size of the SVG, so that text is sharp on any screen.
const PNG_SCALE: f32 = 2.0;
/// More dots than this per box are a smear.
const DOTS_MAX: usize = 200;

/// Okabe and Ito's colours, which colour-blind people can tell apart.
const COLORS: [&str; 4] = ["#999999", "#0072B2", "#E69F00", "#009E73"];
const BOX: &str = "#6BAED6";
// kuva's rasteriser leaves out what is half transparent.
const DOT: &str = "#333333";
const MARK: &str = "#D55E00";
