rule check:
    input:
        images=images_of,
        masks=masks_of,
    output:
        "results/check/{dataset}.json",
    log:
        text="logs/steps/check/{dataset}.log",
        events="logs/steps/check/{dataset}.jsonl",
    benchmark:
        "logs/steps/check/{dataset}.tsv"
    container:
        IMAGE.url
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=0,
    params:
        identity=identity("check"),
        copier=told(copier),
        options=told(
            lambda w: commands.check(dataset_of(w), PROJECT.models, LEARNER.is_ours)
        ),
    message:
        "check {wildcards.dataset}"
    shell:
        "python -m biom3d.check {params.options} --out {output}"
        " --events {log.events} 2>&1 | {params.copier} {log.text}"


# A data set that cannot be read while the rules are read: its files are no inputs (Snakemake would end the whole run
# over them), and this job, which only fails, makes the run tell it at its end and return an error.
rule unreadable:
    output:
        "results/check/{dataset}.unreadable",
    log:
        "logs/steps/unreadable/{dataset}.log",
    localrule: True
    container:
        IMAGE.url
    params:
        why=lambda w: PROJECT.unreadable.get(w.dataset, "it can be read now"),
    message:
        "{wildcards.dataset} cannot be read"
    shell:
        "printf 'check: error: %s\\n' {params.why:q} 2>&1 | tee -i {log}; exit 2"
