#!/bin/sh
# The crystals of the studies of pretraining: the recipes of data_prep/ with neighbours up to 4.5 angstrom instead of 6, which
# leaves two fifths of the edges and lets two cores see twice as many crystals in the same time. Reads downloads/.
#
#     sh scaling_studies/prepare_crystals.sh
set -eu
for name in mp_gap perov_5 carbon_24 mptrj alexandria; do
    matsci-hpc prep "data_prep/$name.yaml" neighbors.cutoff=4.5 "out=datasets/near/$name"
done
# Its band gaps stay out: they are of materials that mp_gap holds out.
matsci-hpc prep data_prep/mp_megnet2018.yaml neighbors.cutoff=4.5 out=datasets/near/mp_megnet2018 \
    'source.targets={formation_energy: {key: formation_energy_per_atom, unit: eV/atom}}'
