"""From a job and its weights to pictures: prompts read, latents denoised, previews made."""
