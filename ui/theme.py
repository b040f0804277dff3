"""How the page looks: Gradio's default theme with our colours, and no web fonts to wait for."""

from __future__ import annotations

import gradio as gr

THEME = gr.themes.Default(
    primary_hue="orange",
    neutral_hue="stone",
    radius_size=gr.themes.sizes.radius_lg,
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="#faf9f7",
    body_background_fill_dark="#131110",
    background_fill_secondary="#f1efec",
    background_fill_secondary_dark="#1b1917",
    block_background_fill="white",
    block_background_fill_dark="#1d1a18",
    block_shadow="none",
    block_border_color_dark="#35302c",
    block_label_background_fill="transparent",
    block_title_text_weight="500",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    border_color_primary_dark="#3a3531",
    input_background_fill="white",
    input_background_fill_dark="#141210",
    # Gradio's own placeholder grey has a contrast of 1.9 : 1; WCAG asks for 4.5.
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_cancel_background_fill="#b91c1c",
    button_cancel_background_fill_dark="#b91c1c",
    button_cancel_background_fill_hover="#991b1b",
    button_cancel_background_fill_hover_dark="#991b1b",
    button_cancel_text_color="white",
    button_cancel_text_color_dark="white",
    slider_color="*primary_700",
    slider_color_dark="*primary_500",
    color_accent="*primary_700",
    link_text_color="*primary_800",
    link_text_color_dark="*primary_400",
)
