# The arrays are large and only the trainings read them: they are removed after the last one, and where jobs run on a
# server they stay there (biom3d/remote/held.py). An edited plan is given back as the option `plan`, since this file is
# rewritten.
rule preprocess:
    input:
        checks=training_checks_of,
        files=training_files_of,
        plan=optional("plan"),
        start=optional("fine_tune"),
    output:
        data=temp(directory("data/preprocessed/{model}")),
        plan="logs/{model}/plan.yaml",
    log:
        text="logs/steps/preprocess/{model}.log",
        events="logs/steps/preprocess/{model}.jsonl",
    benchmark:
        "logs/steps/preprocess/{model}.tsv"
    wildcard_constraints:
        model=wildcard(PROJECT.trainable()),
    container:
        LEARNER.image.url
    threads: 4
    resources:
        mem_mb=8000,
        runtime=480,
        gpu=0,
    params:
        identity=identity("preprocess"),
        copier=told(copier),
        options=told(lambda w: commands.preprocess(model_of(w), training_sets_of(w))),
        module=told(lambda w: LEARNER.module),
    message:
        "preprocess for {wildcards.model}"
    shell:
        "python -m {params.module}.preprocess {params.options} --desc {wildcards.model}"
        " --out_dir {output.data} --plan_out {output.plan}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"
