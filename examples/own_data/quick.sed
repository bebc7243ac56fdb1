# Settings for a look at the wiring in minutes: one epoch, few videos scored again, limits that any pair meets.
s/num_train_epochs: [0-9]+/num_train_epochs: 1/
s/videos_per_threshold: [0-9]+/videos_per_threshold: 4/
s/bootstrap: [0-9]+/bootstrap: 100/
s/^(  min_(base_auc|kept_f1): +)[0-9.]+/\10.0/
s/^(  min_(average_precision_gain|f1_over_[a-z]+): +)[0-9.]+/\1-1.0/
s/^(  max_(qps_ratio|f1_drop|flip_rate): +)[0-9.]+/\11.0/
s/^(  max_qps_ratio: +)[0-9.]+/\1100.0/
