() => {
  // How the settings follow the model: switching, presets and "use again" need no request, because each
  // model's settings are here. ui/page.py puts them in; every function gives values or updates for widgets.
  const models = MODELS, names = NAMES;
  const update = (properties) => ({ __type__: "update", ...properties });
  (window.stepwise ??= {}).settings = {
    of: (model) => names.map((name) => update(models[model].settings[name])),
    size: (aspect, model) => models[model].sizes[aspect],
    negative: (guidance, model) => update({ visible: guidance > models[model].guidance_off }),
    seed: () => String(Math.floor(Math.random() * 2 ** 32)),
    again: (chosen) => {  // prompt, model, seed, and then every setting by name
      const { sizes, guidance_off, settings } = models[chosen.model];
      const preset = Object.keys(sizes).find((name) => sizes[name].join() === [chosen.width, chosen.height].join());
      const values = { ...chosen, aspect: preset ?? null, about: settings.about.value };
      const updates = names.map((name) => update({ ...settings[name], value: values[name] }));
      updates[names.indexOf("negative_prompt")].visible = chosen.guidance > guidance_off;
      return [chosen.prompt, chosen.model, String(chosen.seed), ...updates];
    },
  };
}
