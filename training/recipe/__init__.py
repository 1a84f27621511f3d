"""The paper's recipe on nnU-Net: train.sh takes folders of scans to exported weights."""
