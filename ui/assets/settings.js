() => {
  // How the settings follow the model: switching, presets and "use again" need no request, because each
  // model's settings are here. ui/page.py puts them in; every function gives values or updates for widgets.
  const models = MODELS, names = NAMES;
  let current = FIRST;
  const update = (properties) => ({ __type__: "update", ...properties });
  (window.stepwise ??= {}).settings = {
    of: (model) => {
      current = model;
      window.stepwise.fields.tell();
      return names.map((name) => update(models[model].settings[name]));
    },
    // A number that was cleared is the model's own again, not the least, as which Gradio (6.31) reads it.
    fill: (field) => {
      const name = field?.type === "number" && field.value === "" && names.find((one) => field.closest(`#${one}`));
      if (!name) return;
      field.value = models[current].settings[name].value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },
    size: (aspect, area, model) => {  // a preset chosen where none was: the other half of it is the first one
      const { sizes } = models[model];
      const [of, at] = [aspect ?? "1:1", area ?? Object.keys(sizes)[0]];
      return [of, at, ...sizes[at][of]];
    },
    negative: (guidance, model) => update({ visible: guidance > models[model].guidance_off }),
    seed: () => {
      window.stepwise.fields.tell();
      return String(Math.floor(Math.random() * 2 ** 32));
    },
    again: (chosen) => {  // prompt, model, seed, and then every setting by name
      current = chosen.model;
      window.stepwise.fields.tell();
      const { sizes, guidance_off, settings } = models[chosen.model];
      const is = ([width, height]) => width === chosen.width && height === chosen.height;
      const area = Object.keys(sizes).find((at) => Object.values(sizes[at]).some(is)) ?? null;
      const aspect = area && Object.keys(sizes[area]).find((of) => is(sizes[area][of]));
      const values = { ...chosen, aspect, area, about: settings.about.value };
      const updates = names.map((name) => update({ ...settings[name], value: values[name] }));
      updates[names.indexOf("negative_prompt")].visible = chosen.guidance > guidance_off;
      return [chosen.prompt, chosen.model, String(chosen.seed), ...updates];
    },
  };
}
